// Package admin is the Admin service: what operators and the larder command
// ask. Every call needs the admin role, which server/auth checks for the whole
// service.
//
// Explain is the heart of it: why does a prompt miss. It recomputes the
// prompt's keys and walks them against what is visible, then looks for the
// first absent chunk among the drops that are remembered and under the roots
// that were asked for: the same tokens under another root mean another tenant,
// salt or namespace.
//
// The package keeps nothing and changes nothing but by Clear and Pin. It shows no
// secrets: keys of chunks are names, tenants' keys never leave the registry.
package admin
