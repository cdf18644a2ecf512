#include "vhost/guest_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nothing that a guest has is larger; it keeps every sum of two of these far from 2^64. */
#define MOST_BYTES (1ull << 56)

/* What the handler may look at. */
static const struct guest_memory *guarded;
static _Atomic uint32_t *gone_word;

static bool overlaps(uint64_t a, uint64_t b, uint64_t a_bytes, uint64_t b_bytes)
{
    return a < b ? b - a < a_bytes : a - b < b_bytes;
}

static bool is_range(uint64_t address, uint64_t bytes)
{
    return bytes != 0 && bytes < MOST_BYTES && address + (bytes - 1) >= address;
}

static enum memory_fault fault_of(const struct guest_memory *memory, uint64_t guest, uint64_t front_end,
                                  uint64_t bytes, uint64_t offset)
{
    if (memory->count == MOST_REGIONS)
        return MEMORY_TOO_MANY;
    if (!is_range(guest, bytes) || !is_range(front_end, bytes) || offset >= MOST_BYTES)
        return MEMORY_ADDRESS;
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct region *other = &memory->regions[i];
        if (overlaps(guest, other->guest, bytes, other->bytes)
            || overlaps(front_end, other->front_end, bytes, other->bytes))
            return MEMORY_OVERLAP;
    }
    return MEMORY_FINE;
}

/* Files of huge pages are mapped in whole ones, and say how large these are. */
static uint64_t unit_of(const struct stat *file)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = (uint64_t)file->st_blksize;
    return unit > page && (unit & (unit - 1)) == 0 ? unit : page;
}

enum memory_fault memory_add(struct guest_memory *memory, uint64_t guest, uint64_t front_end, uint64_t bytes,
                             uint64_t offset, int fd)
{
    struct stat file;
    enum memory_fault fault = fault_of(memory, guest, front_end, bytes, offset);
    if (fault != MEMORY_FINE)
        return fault;
    if (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode))
        return MEMORY_FILE;
    if ((uint64_t)file.st_size < offset + bytes)
        return MEMORY_SHORT;
    uint64_t unit = unit_of(&file), from = offset & ~(unit - 1);
    size_t length = (size_t)((offset + bytes - from + unit - 1) & ~(unit - 1));
    void *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
    if (mapped == MAP_FAILED)
        return MEMORY_REFUSED;
#ifdef MADV_DONTDUMP
    madvise(mapped, length, MADV_DONTDUMP); /* a guest's memory is nothing for our core dumps */
#endif
    memory->regions[memory->count++] = (struct region){.guest = guest,
                                                       .front_end = front_end,
                                                       .bytes = bytes,
                                                       .at = (uint8_t *)mapped + (offset - from),
                                                       .mapped = mapped,
                                                       .mapped_bytes = length};
    return MEMORY_FINE;
}

static void unmap(struct region *region)
{
    munmap(region->mapped, region->mapped_bytes);
    *region = (struct region){0};
}

bool memory_remove(struct guest_memory *memory, uint64_t guest, uint64_t front_end, uint64_t bytes)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        struct region *region = &memory->regions[i];
        if (region->guest != guest || region->front_end != front_end || region->bytes != bytes)
            continue;
        unmap(region);
        struct region *last = &memory->regions[--memory->count];
        *region = *last;
        *last = (struct region){0};
        memory->last = 0;
        return true;
    }
    return false;
}

uint8_t *memory_at_front_end(const struct guest_memory *memory, uint64_t address, uint64_t bytes)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct region *region = &memory->regions[i];
        uint64_t into = address - region->front_end;
        if (into < region->bytes && bytes <= region->bytes - into)
            return region->at + into;
    }
    return NULL;
}

uint8_t *memory_search(struct guest_memory *memory, uint64_t address, uint32_t *bytes)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct region *region = &memory->regions[i];
        uint64_t into = address - region->guest;
        if (into >= region->bytes)
            continue;
        memory->last = i;
        if (*bytes > region->bytes - into)
            *bytes = (uint32_t)(region->bytes - into);
        return region->at + into;
    }
    return NULL;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    (void)context;
    for (uint32_t i = 0; guarded != NULL && i < guarded->count; i++) {
        const struct region *region = &guarded->regions[i];
        if ((uintptr_t)info->si_addr - (uintptr_t)region->mapped < region->mapped_bytes) {
            atomic_store_explicit(gone_word, 1, memory_order_seq_cst);
            _exit(MEMORY_GONE_STATUS);
        }
    }
    signal(number, SIG_DFL); /* the instruction is tried again, and ends the process as it would have */
}

int memory_guard(const struct guest_memory *memory, _Atomic uint32_t *gone)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    guarded = memory;
    gone_word = gone;
    return sigaction(SIGBUS, &action, NULL);
}

void memory_close(struct guest_memory *memory)
{
    while (memory->count > 0)
        unmap(&memory->regions[--memory->count]);
    memory->last = 0;
    if (guarded == memory)
        guarded = NULL;
}
