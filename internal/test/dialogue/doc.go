// Package dialogue runs the same conversations on Haraka with its plugins from npm and
// on Tarishi's binary, and compares the replies.
//
// A file in testdata is a site: config files for both servers, the records of a DNS, and
// dialogues with the replies that Haraka gives. Where ours differ on purpose both
// replies stand there, with the reason. script_test.go describes the form.
//
// Each server runs in a network namespace of its own in which all addresses are local
// ones, so that clients have addresses of the world although nothing leaves the
// machine. That needs Linux, root or user namespaces, the program ip, and node and npm,
// which install Haraka once into the user's cache folder.
package dialogue
