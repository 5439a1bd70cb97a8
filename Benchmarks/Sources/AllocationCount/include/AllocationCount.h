// Counts heap allocations of the whole process that links this: by standing before the C library's functions.
#ifndef ALLOCATION_COUNT_H
#define ALLOCATION_COUNT_H

#include <stdint.h>

// Since the process started.
uint64_t allocation_count(void);

#endif
