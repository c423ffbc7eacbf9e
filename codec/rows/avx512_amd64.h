// What several kernels do with a register of 64 bytes or 8 sums.

// ZEROS: adds to n how many bytes of z are 0; K1 and R8 are scratch.
#define ZEROS(z, n) \
	VPTESTNMB z, z, K1; \
	KMOVQ K1, R8; \
	POPCNTQ R8, R8; \
	ADDQ R8, n

// GREATEST: the greatest byte of z in r; y2 and x2 are scratch.
#define GREATEST(z, y, x, y2, x2, r) \
	VEXTRACTI64X4 $1, z, y2; \
	VPMAXUB y2, y, y; \
	VEXTRACTI128 $1, y, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $8, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $4, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $2, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $1, x, x2; \
	VPMAXUB x2, x, x; \
	VPEXTRB $0, x, r

// SUM: adds up the eight quadwords of Z0 in X0; Y1 is scratch.
#define SUM \
	VEXTRACTI64X4 $1, Z0, Y1; \
	VPADDQ Y1, Y0, Y0; \
	VEXTRACTI128 $1, Y0, X1; \
	VPADDQ X1, X0, X0; \
	VPSRLDQ $8, X0, X1; \
	VPADDQ X1, X0, X0

// OWN: asks for the lines at AX and the three behind it, to be written; AX moves on
// by stride: PREFETCHW, which the assembler does not know.
#define OWN(stride) \
	BYTE $0x0f; WORD $0x080d; \
	LONG $0x40480d0f; \
	BYTE $0x0f; WORD $0x880d; LONG $0x80; \
	BYTE $0x0f; WORD $0x880d; LONG $0xc0; \
	ADDQ stride, AX
