// Package arch holds the architecture as a table: the floor of each package and
// its permitted imports. Its tests read the source files and
// fail on an import that the table does not allow, on a package that it does
// not know and on a package without exactly one package comment. A change of
// the architecture is a change of the table, in the same commit.
package arch
