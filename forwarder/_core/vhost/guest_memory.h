/* The memory of a guest: regions of files, shared by the VM and mapped into this worker only.

   Theory of operation. A vhost-user front-end sends each region of the guest's memory as a file, with three addresses:
   where the guest sees it (descriptors carry these), where the front-end sees it (the addresses of the rings), and
   where it begins in the file. An address is never used before it was found in a region, with all of its bytes; the
   check subtracts, so that no sum can overflow. Regions do not overlap, in either address space, so there is one
   answer.

   A file is checked when it is mapped: it is a regular one and holds all of the region. The guest's side may shrink
   it later, since it is not sealed, and touching missing pages raises SIGBUS. Such a guest ends its own worker: the
   handler notes it in a word that outlives the process and exits; a SIGBUS at any other address has its usual effect.

     example   region: guest 0x100000, front-end 0x7f0000100000, 1 MiB, at 0x100000 of the file
               memory_at_guest(0x1ffff0, &bytes = 32)   the last 16 bytes, *bytes becomes 16
               memory_at_front_end(0x7f0000200000, 1)   NULL

   One thread: regions change between two turns only, and stored pointers are looked up again then. */
#ifndef BULKHEAD_GUEST_MEMORY_H
#define BULKHEAD_GUEST_MEMORY_H

#include <stdatomic.h>
#include <stddef.h>

#include "common.h"

/* QEMU has two or three and one more for each DIMM; each costs the supervisor a descriptor. */
#define MOST_REGIONS 32u

/* Exit status of a worker whose guest took its memory away. */
#define MEMORY_GONE_STATUS 7

struct region {
    uint64_t guest;     /* the guest's physical address */
    uint64_t front_end; /* the front-end's virtual address */
    uint64_t bytes;
    uint8_t *at;        /* ours */
    void *mapped;
    size_t mapped_bytes;
};

struct guest_memory {
    struct region regions[MOST_REGIONS];
    uint32_t count;
    uint32_t last; /* the region of the last address: the next one is there as a rule */
};

/* The faults of a region. */
enum memory_fault {
    MEMORY_FINE,
    MEMORY_TOO_MANY,
    MEMORY_ADDRESS,  /* empty, or an end beyond the last address */
    MEMORY_OVERLAP,
    MEMORY_FILE,     /* no regular file */
    MEMORY_SHORT,    /* the file ends before the region does */
    MEMORY_REFUSED   /* mmap: errno says why */
};

/* Map a region, `offset` bytes into the file `fd`, which may be closed afterwards. */
enum memory_fault memory_add(struct guest_memory *memory, uint64_t guest, uint64_t front_end, uint64_t bytes,
                             uint64_t offset, int fd);

/* Unmap the region with exactly these addresses; false if there is none. */
bool memory_remove(struct guest_memory *memory, uint64_t guest, uint64_t front_end, uint64_t bytes);

/* Until memory_close, end this process, with a note in *gone, when a missing page of these regions is touched. Only
   one memory per process. */
int memory_guard(const struct guest_memory *memory, _Atomic uint32_t *gone);

void memory_close(struct guest_memory *memory);

/* Where `bytes` at a front-end's address are, NULL if they are not all in one region. */
uint8_t *memory_at_front_end(const struct guest_memory *memory, uint64_t address, uint64_t bytes);

uint8_t *memory_search(struct guest_memory *memory, uint64_t address, uint32_t *bytes);

/* Where a guest's address is; *bytes shrinks to what its region has from there on. NULL: nowhere. */
static inline uint8_t *memory_at_guest(struct guest_memory *memory, uint64_t address, uint32_t *bytes)
{
    const struct region *region = &memory->regions[memory->last];
    uint64_t into = address - region->guest;
    if (LIKELY(into < region->bytes && *bytes <= region->bytes - into))
        return region->at + into;
    return memory_search(memory, address, bytes);
}

#endif
