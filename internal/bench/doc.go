// Package bench measures the real binary: it makes a gigabyte of image layers, serves them with
// 'sealift serve' on loopback, and runs every command that moves payload as a process of its own,
// beside bare loops that do the least that must be done (fetch, hash, write; read, hash; read,
// hash, upload) and beside the tools that are installed. What does not depend on the size of the
// payload it measures on a sparse bundle of 10 GB.
//
// 'make bench' runs it, on Linux; docs/performance.md says how to read what it prints. Time is
// reported and never judged. Memory, what is written to the disk and what is read are promises:
// BenchmarkCommands and TestPromises fail where one does not hold.
//
//	SEALIFT_BIN           the binary to measure; without it nothing runs
//	SEALIFT_BENCH_DIR     where the data goes (default: the temporary directory); about 5 GB
//	SEALIFT_BENCH_ROUNDS  how often everything is repeated (default: 4)
//	SEALIFT_BENCH_MB      how many MB of layers are made (default: 1000)
package bench
