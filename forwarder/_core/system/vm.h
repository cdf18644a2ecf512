/* The system calls on the VM's descriptor, and the meaning of their errors.

   Theory of operation. Nothing here blocks and nothing here retries: one call, one answer. What an answer
   means is decided once, in this table:

     EAGAIN              VM_FULL       the VM does not read; wait until the descriptor is writable
     ENOBUFS, ENOMEM     VM_NO_BUFFER  the kernel has no buffer; writability says nothing, retry by timer
     EMSGSIZE, EIO       refused       this frame cannot be sent (too long, TAP down); the next one may be
     EINVAL from a TAP   refused       its virtio_net_hdr makes no sense to the kernel
     any other           VM_DOWN       the link is finished

   A stream takes bytes, so a write may end inside of a record; the other kinds take whole frames. KIND_STREAM16 is a
   stream with another framing (framing.h), which does not matter here. A TAP's kernel needs a virtio_net_hdr in front
   of each frame: the record's own, or an empty one. Plain frames may be joined for it (coalesce.h); they are counted
   one by one.

   Example. 64 frames of 1,514 bytes for a QEMU stream are one sendmsg of 64 spans, which may take 40,000 bytes of them:
   26 frames and a half. For a datagram socket they are one sendmmsg, which takes 26. For a TAP they are two writes of
   32 segments each, if they belong to one TCP connection, else 64.

   Calls. From the engine's thread. The descriptor stays the caller's; spans and buffers are only used during a call. */
#ifndef BULKHEAD_VM_H
#define BULKHEAD_VM_H

#include <sys/uio.h>

#include "common.h"

enum port_kind { KIND_STREAM, KIND_STREAM16, KIND_SEQPACKET, KIND_DGRAM, KIND_TAP, KIND_VHOST };

enum vm_status { VM_OK, VM_FULL, VM_NO_BUFFER, VM_GARBLED, VM_DOWN };

struct vm {
    int fd; /* -1: KIND_VHOST, whose frames go through the guest's memory (vhost_port.h) */
    enum port_kind kind;
    uint32_t infer_mtu; /* of a VM whose frames have lost their headers (infer.h); 0: they had none */
};

static inline bool vm_is_stream(const struct vm *vm)
{
    return vm->kind == KIND_STREAM || vm->kind == KIND_STREAM16;
}

/* Do the bytes that it sends come as records? */
static inline bool vm_sends_records(const struct vm *vm)
{
    return vm->kind == KIND_STREAM && vm->infer_mtu == 0;
}

/* Do frames to it have a virtio_net_hdr in front? */
static inline bool vm_takes_headers(const struct vm *vm)
{
    return vm->kind == KIND_TAP || vm->kind == KIND_VHOST;
}

/* What an error behind VM_DOWN means, for people. */
const char *vm_error_text(int error);

/* Contiguous records. On a stream they are our own, and the first span may start inside of a record; else they may lie
   in memory that a neighbour can change. */
struct span {
    const uint8_t *records;
    uint32_t bytes;
    bool vnet; /* each frame is behind a virtio_net_hdr: for a TAP or a guest's queue only */
};

#define MAX_SPANS 64u

struct vm_sent {
    uint64_t bytes;   /* of records, length prefixes included; refused frames count as taken */
    uint64_t payload; /* of those, bytes of frames that were written (on a stream: all bytes) */
    uint32_t frames;  /* written (0 on a stream, where frames are not looked at) */
    uint32_t refused;
    int error;        /* errno behind VM_DOWN */
};

/* Write parts of our own and of others' memory to a stream: parts[i].iov_len is what the kernel goes by. */
enum vm_status vm_write_parts(const struct vm *vm, struct iovec *parts, unsigned count, struct vm_sent *sent);

/* Write what one call takes; it ends with a frame that is refused. VM_GARBLED: a record's length does not fit its span,
   or a frame without a header is longer than `longest` (nothing of it was sent). */
enum vm_status vm_write(const struct vm *vm, const struct span *spans, unsigned count, uint32_t longest,
                        struct vm_sent *sent);

/* Bytes of header in front of a read frame: from a TAP's kernel or a guest's driver; ingress.c infers others. */
static inline uint32_t vm_header_bytes(const struct vm *vm)
{
    return vm_takes_headers(vm) || vm->infer_mtu != 0 ? VNET_BYTES : 0;
}

/* Bytes into one buffer (stream, TAP). Returns the count, 0 at the end of a stream, or -1 with *status set. */
long vm_read(const struct vm *vm, uint8_t *buffer, size_t size, enum vm_status *status, int *error);

#define SLOTS 32u
#define SLOT_BYTES 73728u /* LENGTH_BYTES + MAX_FRAME and one byte more, rounded to pages */

struct slot_read {
    uint32_t bytes;
    bool truncated;
};

/* Up to SLOTS datagrams, each `at` bytes into its slot. Returns their number or -1 with *status set. */
int vm_read_datagrams(const struct vm *vm, uint8_t *slots, uint32_t at, struct slot_read *read, enum vm_status *status,
                      int *error);

/* For a seqpacket socket: has the other side gone (a message of no bytes looks the same)? */
bool vm_hung_up(const struct vm *vm);

#endif
