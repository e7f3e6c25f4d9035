package dispatch

import "tarishi/internal/schedule/unit"

type class uint8

// The classes of ready units. Mail from the null sender, DSNs above all, has
// places for itself, tried or not.
const (
	fresh class = iota
	retry
	null
	classes
)

// Unit is one delivery: 64 bytes. A running Unit belongs to the caller that Begin
// gave it to; other units may only be read through the Schedule.
type Unit struct {
	dest *Domain
	unit.Packed
}

// NewUnit makes a unit of d, which is in no state yet.
func NewUnit(d *Domain, v unit.Delivery) *Unit { return &Unit{dest: d, Packed: unit.Pack(v)} }

// Dest returns the domain that the unit belongs to.
func (u *Unit) Dest() *Domain { return u.dest }

// Domain returns the destination domain as it was given to Add.
func (u *Unit) Domain() string { return u.dest.Name }

func (u *Unit) classOf() class {
	switch {
	case u.Null():
		return null
	case u.Attempts() == 0:
		return fresh
	}
	return retry
}
