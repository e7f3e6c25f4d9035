package control

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"time"
)

// Operation is one row of the table. Object, List, Lines and Content make it.
type Operation struct {
	Name   string // the words of the command: "queue list"
	Method string // of HTTP
	Path   string // of HTTP: a pattern, in which {id} is the parameter of that name
	// Single is a path for one message: {id} stands for a parameter id, no others
	// are taken, and an element that reports a failure becomes the status. "":
	// there is none.
	Single string

	Text       string // its purpose: one sentence
	Prints     string // what the command prints, for the reference
	Answer     string // what HTTP answers, for the reference
	Parameters []Parameter
	Files      bool // the files of a stopped daemon will do

	form   form
	key    string // of the array in the answer, see List
	stream func(ctx context.Context, a Arguments, emit func(any) error) error
	decode func(in *json.Decoder) (any, error)
	print  func(o *Output) (item func(any), end func())
}

// form is how the elements of an answer travel.
type form int

const (
	object  form = iota // one JSON object
	list                // one JSON object with an array
	lines               // a JSON object a line
	content             // bytes as they are
)

// Printer begins to print an answer for people: item is called with each element,
// and end after the last one if nothing failed.
type Printer[T any] func(o *Output) (item func(*T), end func())

// Output is where a command prints.
type Output struct {
	*bufio.Writer           // results
	Err           io.Writer // everything else
	Now           time.Time // what ages are counted from
}

// Failure is an element that may tell of something that could not be done, beside
// others that could.
type Failure interface{ Failure() error }

// Bytes is the element of Content's answer.
type Bytes struct {
	Size int64
	io.Reader
}

// Object completes an operation that answers with one T.
func Object[T any](op Operation, do func(ctx context.Context, a Arguments) (*T, error), p Printer[T]) Operation {
	return completeRow(op, object, func(ctx context.Context, a Arguments, emit func(*T) error) error {
		v, err := do(ctx, a)
		if err != nil {
			return err
		}
		return emit(v)
	}, p)
}

// List completes an operation that answers with several T, few enough for one
// object that has them under key.
func List[T any](op Operation, key string, do func(ctx context.Context, a Arguments) ([]T, error), p Printer[T]) Operation {
	op.key = key
	return completeRow(op, list, func(ctx context.Context, a Arguments, emit func(*T) error) error {
		all, err := do(ctx, a)
		for i := range all {
			if err == nil {
				err = emit(&all[i])
			}
		}
		return err
	}, p)
}

// Lines completes an operation that answers with any number of T, as they come.
func Lines[T any](op Operation, do func(ctx context.Context, a Arguments, emit func(*T) error) error, p Printer[T]) Operation {
	return completeRow(op, lines, do, p)
}

func completeRow[T any](op Operation, f form, do func(context.Context, Arguments, func(*T) error) error, p Printer[T]) Operation {
	op.form = f

	// Only here is T known: from now on elements travel as any, and every row has
	// one type.
	op.stream = func(ctx context.Context, a Arguments, emit func(any) error) error {
		return do(ctx, a, func(v *T) error { return emit(v) })
	}
	op.decode = func(in *json.Decoder) (any, error) {
		v := new(T)
		return v, in.Decode(v)
	}
	op.print = func(o *Output) (func(any), func()) {
		item, end := p(o)
		return func(v any) { item(v.(*T)) }, end
	}
	return op
}

// Content completes an operation that answers with the bytes of a message. The
// caller of do closes the reader.
func Content(op Operation, do func(ctx context.Context, a Arguments) (io.ReadCloser, int64, error)) Operation {
	op.form = content
	op.stream = func(ctx context.Context, a Arguments, emit func(any) error) error {
		r, size, err := do(ctx, a)
		if err != nil {
			return err
		}
		defer r.Close()
		return emit(&Bytes{size, r})
	}
	return op
}

// Print begins to print an answer for people; nil: it is Bytes.
func (op *Operation) Print(o *Output) (item func(any), end func()) {
	if op.print == nil {
		return nil, nil
	}
	return op.print(o)
}

// Parameter returns the parameter with a name, nil if there is none.
func (op *Operation) Parameter(name string) *Parameter {
	for i := range op.Parameters {
		if op.Parameters[i].Name == name {
			return &op.Parameters[i]
		}
	}
	return nil
}
