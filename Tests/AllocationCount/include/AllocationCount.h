// Counts heap allocations of the process that links this: by standing before the C library's functions.
#ifndef ALLOCATION_COUNT_H
#define ALLOCATION_COUNT_H

#include <stdbool.h>
#include <stdint.h>

// Since the process started, of all threads.
uint64_t allocation_count(void);

// Of the calling thread, since it started.
uint64_t thread_allocation_count(void);

// Whether anything is counted: not in builds with a sanitizer, which has an allocator of its own.
bool counts_allocations(void);

#endif
