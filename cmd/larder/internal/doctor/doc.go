// Package doctor looks for what keeps Larder from working well on a host:
// kernel, limits, huge pages, sockets, the daemon and the Python package.
//
// Each check makes one or more findings; a finding that is not OK has a
// remedy. Checks change nothing on the host. Everything they ask of it goes
// through Host, so that tests can be a different one.
package doctor
