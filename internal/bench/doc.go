// Package bench measures the real binary: it makes a gigabyte of image layers, serves them
// with 'sealift serve' on loopback, and runs keygen, pack, verify, inspect, seed and version as
// processes of their own, beside bare loops that do the least that must be done (fetch, hash,
// write; read, hash; read, hash, upload) and beside the tools that are installed.
//
// 'make bench' runs it, on Linux; docs/performance.md says how to read what it prints. Time is
// reported and never judged. Memory is a promise: TestMemory fails where a command takes more
// than it may.
//
//	SEALIFT_BIN           the binary to measure; without it nothing runs
//	SEALIFT_BENCH_DIR     where the data goes (default: the temporary directory); about 5 GB
//	SEALIFT_BENCH_ROUNDS  how often everything is repeated (default: 4)
package bench
