/* Finish offloads: make the checksums and segments that a sender's kernel left to its device.

   Theory of operation. A TAP with IFF_VNET_HDR is a network card that does offloads (tap.c): its kernel hands over
   TCP in frames of up to 64 KiB, with a sum begun and not finished, behind a virtio_net_hdr that says what is left to
   do (Virtual I/O Device 1.2, section 5.1.6.2). To another TAP a frame goes with its header, unchanged: that kernel
   treats it like a frame that a card has joined, and the work is never done. For any other VM, and for a flood, the
   sender's worker does it, at the sender's cost: one frame or many, each complete, none longer than the sender's MTU
   allows.

   A frame is cut as TCP/IP would have made its parts: the headers are repeated, each with its own lengths, sequence
   number or IP identification, FIN and PSH on the last, CWR on the first (RFC 3168, section 6.1.2), and the header's
   checksum. The kernel's partial sum covers the pseudo header. Here it is only corrected by the difference in length
   (RFC 1624) and continued, so addresses need not be read.

   The header is the kernel's, but a program behind the TAP can have it written (packet(7), PACKET_VNET_HDR), and a guest
   writes its own, so it is checked. A checksum is stored after the frame was checked, here or by a receiver's kernel. So
   offload_is_sound checks for every frame that its place is none which a check has read: not an address, an EtherType
   or ARP, not a port, TCP's flags or ICMP's type. Honest kernels leave the fields of TCP and UDP, GRE's, and those of
   packets inside another (IPIP, GRE, VXLAN, HSR). offload_open checks the rest before the work: everything lies inside
   the frame and matches the header. Encapsulated packets do not match: no kernel leaves them to us, since we do not offer it. A
   segment carries at least SEGMENT_LEAST bytes, so a frame becomes at most 1 KiB times as many. */
#ifndef BULKHEAD_OFFLOAD_H
#define BULKHEAD_OFFLOAD_H

#include "offload/intake.h"

/* Linux makes none smaller: TCP_MIN_GSO_SIZE, the smallest MSS less all options. */
#define SEGMENT_LEAST 8u

struct offload {
    const uint8_t *frame;
    uint32_t bytes;     /* of the frame */
    uint32_t headers;   /* repeated in front of each segment; 0: the frame stays one */
    uint32_t step;      /* payload of a segment */
    uint32_t at;        /* where the next one's payload begins */
    uint32_t ip;        /* where these headers begin, in a frame that is cut */
    uint32_t transport;
    bool is_ipv4, is_tcp;
    uint32_t sum_from;  /* what the checksum covers */
    uint32_t sum_at;    /* where it is stored; 0: nothing to be done */
    uint32_t number;    /* of the next segment */
};

/* May a frame go on with the header at `vnet` (VNET_BYTES)? False: its sum would be stored over what others rely on. */
bool offload_is_sound(const uint8_t *vnet, const uint8_t *frame, uint32_t bytes);

/* The TAKES_* bits that a VM needs for a frame with the header at `vnet`, unchanged; bits that no VM has if the header
   asks for something unknown. */
uint32_t offload_needs(const uint8_t *vnet, const uint8_t *frame, uint32_t bytes);

/* May a frame go to this intake, with the header at `vnet`, or without one (NULL)? A frame to be cut may be longer than
   another. If it lies in a neighbour's memory, the header must be a copy, or it may become another one. */
bool offload_may_go(const struct intake *intake, const uint8_t *vnet, const uint8_t *frame, uint32_t bytes);

/* Begin with a frame behind its header, `bytes` together; the frame has at least MIN_FRAME. False: the header makes
   no sense. */
bool offload_open(struct offload *offload, const uint8_t *vnet, uint32_t bytes);

/* For an opened frame: make no segment longer than `longest`, if that leaves room for payload. */
void offload_limit(struct offload *offload, uint32_t longest);

/* For an opened frame: do not cut it, however long it is. */
void offload_keep_whole(struct offload *offload);

static inline bool offload_is_done(const struct offload *offload)
{
    return offload->at == offload->bytes;
}

/* Bytes of the next record. */
static inline uint32_t offload_next_bytes(const struct offload *offload)
{
    uint32_t left = offload->bytes - offload->at;
    return LENGTH_BYTES + offload->headers + (left < offload->step ? left : offload->step);
}

/* Write the next finished frame as a record; returns its bytes. */
uint32_t offload_next(struct offload *offload, uint8_t *record);

/* Remove the last segment of the frame behind the header at `vnet`, in place. Returns the bytes that are left, with
   the header; 0: it has not several segments, and was not changed. */
uint32_t offload_shorten(uint8_t *vnet, uint32_t bytes);

#endif
