#include "shared/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* No ring needs more, and it bounds the address space that a wrong descriptor could make us reserve. */
#define MAX_RING_BYTES (1u << 28)

int shm_fail(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int shm_create(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, SIZE_SEALS) < 0)
        return shm_fail(fd);
    return fd;
}

static int sealed_size(int fd, size_t *size)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &st) < 0)
        return -1;
    if ((seals & SIZE_SEALS) != SIZE_SEALS) {
        errno = EPERM;
        return -1;
    }
    *size = (size_t)st.st_size;
    return 0;
}

static int protection(enum shm_access access)
{
    return access == SHM_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
}

int shm_map_ring(struct shm *shm, int fd, enum shm_access access)
{
    size_t total;
    if (sealed_size(fd, &total) < 0)
        return -1;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = total > SHM_HEADER_BYTES ? total - SHM_HEADER_BYTES : 0;
    if (size < page || size > MAX_RING_BYTES || (size & (size - 1)) != 0 || SHM_HEADER_BYTES % page != 0) {
        errno = EINVAL;
        return -1;
    }
    size_t reserve = SHM_HEADER_BYTES + 2 * size;
    uint8_t *base = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -1;
    int prot = protection(access);
    uint8_t *data = base + SHM_HEADER_BYTES;
    if (mmap(base, SHM_HEADER_BYTES + size, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED
        || mmap(data + size, size, prot, MAP_SHARED | MAP_FIXED, fd, SHM_HEADER_BYTES) == MAP_FAILED) {
        int saved = errno;
        munmap(base, reserve);
        errno = saved;
        return -1;
    }
    *shm = (struct shm){.header = base, .data = data, .size = (uint32_t)size, .mapped = reserve};
    return 0;
}

int shm_map_flat(struct shm *shm, int fd, size_t bytes, enum shm_access access)
{
    size_t total;
    if (sealed_size(fd, &total) < 0)
        return -1;
    if (total < bytes) {
        errno = EINVAL;
        return -1;
    }
    void *base = mmap(NULL, total, protection(access), MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -1;
    *shm = (struct shm){.header = base, .data = NULL, .size = 0, .mapped = total};
    return 0;
}

int shm_seal_writers(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
}

void shm_unmap(struct shm *shm)
{
    if (shm->header != NULL)
        munmap(shm->header, shm->mapped);
    *shm = (struct shm){0};
}
