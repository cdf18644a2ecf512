/* Checked view of an Ethernet frame and of the length-prefixed records that carry it.

   Theory of operation. A length is checked once: where bytes enter the process (record_next for a stream, the datagram
   readers for everything else), or where they come out of shared memory. After that the accessors trust it and check
   nothing. A record is never copied to be looked at.

   Example. A stream has brought 00 00 00 3c and 40 bytes. record_next says RECORD_PARTIAL and 64: 24 bytes are missing.
   With 00 00 00 05 it says RECORD_RUNT, whatever follows.

   Calls. Pure functions, for any thread; what they return points into the caller's bytes. */
#ifndef BULKHEAD_FRAME_H
#define BULKHEAD_FRAME_H

#include "common.h"

#define ADDRESSES_BYTES (2u * MAC_BYTES)
#define ETHERNET_BYTES (ADDRESSES_BYTES + 2u)

static inline const uint8_t *record_frame(const uint8_t *record)
{
    return record + LENGTH_BYTES;
}

static inline const uint8_t *frame_dst(const uint8_t *frame)
{
    return frame;
}

static inline const uint8_t *frame_src(const uint8_t *frame)
{
    return frame + MAC_BYTES;
}

/* The I/G bit of IEEE 802: broadcast and multicast. */
static inline bool mac_is_group(const uint8_t *mac)
{
    return (mac[0] & 1u) != 0;
}

/* Address as the low 48 bits of a number, for comparing and hashing. */
static inline uint64_t mac_bits(const uint8_t *mac)
{
    uint16_t high;
    uint32_t low;
    memcpy(&high, mac, sizeof high);
    memcpy(&low, mac + sizeof high, sizeof low);
    return (uint64_t)high << 32 | low;
}

static inline void mac_from_bits(uint8_t *mac, uint64_t bits)
{
    uint16_t high = (uint16_t)(bits >> 32);
    uint32_t low = (uint32_t)bits;
    memcpy(mac, &high, sizeof high);
    memcpy(mac + sizeof high, &low, sizeof low);
}

/* Can the address be that of a station (802.3, 3.2.3)? A group's cannot, nor zero. */
static inline bool mac_is_station(const uint8_t *mac)
{
    return !mac_is_group(mac) && mac_bits(mac) != 0;
}

/* The state of the record at the front of a byte stream. */
enum record_status { RECORD_WHOLE, RECORD_PARTIAL, RECORD_RUNT, RECORD_OVERSIZE };

/* Examine the record at p, of which `available` bytes are there. Its size goes to *size once the length
   is known to be good, also when the record is still partial. */
static inline enum record_status record_next(const uint8_t *p, uint64_t available, uint32_t *size)
{
    if (available < LENGTH_BYTES)
        return RECORD_PARTIAL;
    uint32_t length = load_be32(p);
    __asm__("" : "+r"(length)); /* read once: the record may lie in memory that a neighbour changes */
    if (UNLIKELY(length < MIN_FRAME))
        return RECORD_RUNT;
    if (UNLIKELY(length > MAX_FRAME))
        return RECORD_OVERSIZE;
    *size = LENGTH_BYTES + length;
    return available < *size ? RECORD_PARTIAL : RECORD_WHOLE;
}

/* Of `bytes` of records: how many begin in the first `limit` bytes, up to one that makes no sense; *end: where the last
   of them ends. */
static inline uint32_t records_begun(const uint8_t *records, uint32_t bytes, uint32_t limit, uint32_t *end)
{
    uint32_t at = 0, count = 0, size;
    for (; at < limit && record_next(records + at, bytes - at, &size) == RECORD_WHOLE; at += size)
        count++;
    *end = at;
    return count;
}

#endif
