/* Shared memory between the processes of one switch.

   Theory of operation. Everything shared is a memfd, passed by descriptor. It vanishes with its last user, so a killed
   process leaves nothing behind, and it is never written to a disk. It can be sealed, and the seals are what makes a
   neighbour's memory safe to map: SHRINK and GROW mean that no process, however hostile, can cut the file under a
   mapping and kill its reader with SIGBUS; FUTURE_WRITE means that after the owner has mapped its memory no other
   process can map it for writing. A descriptor that lacks the seals of size is refused.

   A mapping is a header and then the data, mapped twice in a row. Whatever starts inside the first copy is contiguous
   in memory, so that nothing above this file ever handles wrap-around.

   Example. A ring of 1 MiB is a memfd of 64 KiB and 1 MiB. Its mapping takes 64 KiB and 2 MiB of addresses; a record of
   1,518 bytes that begins 100 bytes before the end of the data is read in one piece, its tail from the second copy.

   Calls. From any thread. Descriptors stay the caller's, and a mapping outlives them. shm_unmap frees a mapping and may
   be called on a struct of zeroes. Errors: -1 and errno (EPERM: seals missing; EINVAL: not such a memory). */
#ifndef BULKHEAD_SHM_H
#define BULKHEAD_SHM_H

#include <stddef.h>

#include "common.h"

/* A multiple of every page size in use (arm64 kernels have 64 KiB pages); untouched pages cost nothing. */
#define SHM_HEADER_BYTES 65536u

/* Close a descriptor on the way out of a failed call: errno stays, and the result is -1. */
int shm_fail(int fd);

struct shm {
    void *header;
    uint8_t *data;
    uint32_t size;   /* data bytes: a power of two, or 0 where there is only a flat block */
    size_t mapped;   /* bytes of address space, for shm_unmap */
};

enum shm_access { SHM_READ, SHM_WRITE };

/* A sealed memfd of `bytes` bytes (a ring: header and data). -1 and errno. */
int shm_create(const char *name, size_t bytes);

/* Map a ring-shaped memfd: the header, then data, a power of two. -1 and errno (EINVAL: not such a thing,
   EPERM: seals missing). */
int shm_map_ring(struct shm *shm, int fd, enum shm_access access);

/* Map a flat memfd that has at least `bytes`. */
int shm_map_flat(struct shm *shm, int fd, size_t bytes, enum shm_access access);

/* From now on no process can map the file for writing anew; existing mappings keep working. */
int shm_seal_writers(int fd);

void shm_unmap(struct shm *shm);

#endif
