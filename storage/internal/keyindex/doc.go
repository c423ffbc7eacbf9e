// Package keyindex finds records by key: open addressing, 8 bytes an entry, off
// the heap. It is a hint: an entry holds 32 bits of a seeded hash and the number
// of a record, and the key is compared there. The seed keeps clients, who choose
// keys, from choosing collisions.
//
// An entry's place follows from its hash by multiplication, so entries lie
// almost in the order of their hashes, and growing is one sequential pass. It
// grows by half at 85 % load: 9.4 to 14 bytes a record.
//
// An Index does no locking. It does not know keys.
package keyindex
