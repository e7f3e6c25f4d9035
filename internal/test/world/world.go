// Package world delivers to a whole Internet of its own: its tests put the
// real queue, outbound, delivery, resolver, pool and client in front of 200
// domains on loopback, of which two in five are sick in one of the ways that the
// world has, and account for every recipient.
//
// Each recipient must have exactly one fate: a server took its message and said
// so, its sender was told, nobody may be told, or it is still in the queue with
// a reason. That holds after a stop in the middle of everything, when nothing
// more happens, and once the sick have recovered.
//
// TARISHI_WORLD in the environment is the number of messages.
package world
