// Package world delivers to a whole Internet on loopback: its tests put the real
// queue, outbound, delivery, resolver, pool and client in front of 200 domains, two
// in five of them sick in one of the ways that the world has, and account for every
// recipient.
//
// Each recipient must have exactly one fate: a server accepted its message, its
// sender got a report, no report may be sent, or it is still in the queue with a
// reason. That holds after a stop in the middle of everything, when nothing
// more happens, and once the sick have recovered.
//
// TARISHI_WORLD in the environment is the number of messages.
package world
