// Package lab is a virtual cluster on one Linux host: a network of its own in a
// namespace, a head in it, and QEMU machines that boot from it through real
// firmware, each with a BMC that switches it by IPMI and Redfish. The demo, the boot tests and the benchmarks are built on it.
//
// It drives the built programs from outside, as an admin does, and must not
// import the controller or the agent. It needs root, never touches the host's
// own network, and leaves nothing behind: what a killed run could not clear
// away, Sweep removes in the next.
package lab
