/* Limits and small helpers that every part of the core uses. Nothing here has state, and any thread may call it. */
#ifndef BULKHEAD_COMMON_H
#define BULKHEAD_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* Bumped with any change to a structure in shared memory: two processes agree on it before they share. */
#define LAYOUT_VERSION 13u

/* Port numbers run from 1 to MAX_PORTS - 1; 0 means "no port". */
#define MAX_PORTS 1024u

/* Ethernet header included, FCS excluded. The upper bound is QEMU's NET_BUFSIZE (net/net.h), the largest
   buffer among the clients: 64 KiB of TSO payload and room for headers. */
#define MIN_FRAME 14u
#define MAX_FRAME 69632u

/* A record is a frame behind its length, 4 bytes big-endian: the format of a QEMU stream socket. */
#define LENGTH_BYTES 4u
#define MAX_RECORD (LENGTH_BYTES + MAX_FRAME)
#define MIN_RECORD (LENGTH_BYTES + MIN_FRAME)

/* What a TAP's kernel says of a frame, in front of it: struct virtio_net_hdr, little-endian (offload.h). In a record
   that has one, MAX_FRAME bounds both together; a kernel's largest frame is 65,535 bytes behind two VLAN tags. */
#define VNET_BYTES 10u

#define MAC_BYTES 6u

#define NS_PER_S 1000000000ull

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

static inline uint32_t load_be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap32(v);
}

static inline void store_be32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof v);
}

static inline uint32_t load_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline void store_be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline uint32_t load_le16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline void store_le16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline uint64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

#endif
