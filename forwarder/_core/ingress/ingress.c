#include "ingress/ingress.h"

#include "ingress/inbuf.h"
#include "ingress/switch.h"
#include "offload/infer.h"
#include "offload/offload.h"
#include "offload/vnet.h"
#include "packet/framing.h"

/* Is its next burst read a frame a call, straight to its destination? For large datagrams the copy is what a call costs
   many times. Small ones, acknowledgements as a rule, are read many a call. */
static bool comes_in_frames(const struct engine *e)
{
    return e->vm.kind == KIND_TAP || (e->vm.kind == KIND_DGRAM && e->vm.infer_mtu != 0 && e->in.large);
}

static bool is_large(const struct engine *e, uint32_t bytes)
{
    return bytes > e->vm.infer_mtu + LINK_BYTES;
}

static void read_failed(struct engine *e, enum vm_status status, int error)
{
    if (status == VM_DOWN)
        port_link_down(e, "reading from the VM", error);
}

static void bad_length(struct engine *e, enum record_status status)
{
    bool runt = status == RECORD_RUNT;
    *(runt ? &e->count.runt : &e->count.oversize) += 1;
    port_link_down(e, runt ? "the VM sent a length below 14" : "the VM sent a length above the limit", 0);
}

#define LEAST_BURST_BYTES 4096u
/* Is the VM paced because its frames are refused? */
#define REFUSED_BURST_BYTES 16384u

/* A paced VM is read in smaller bursts, so that its pauses are short. */
static uint32_t burst_bytes(const struct engine *e)
{
    uint64_t burst = e->byte_rate.per_second == 0 ? INGRESS_BUDGET : e->byte_rate.per_second / 20;
    if (burst > INGRESS_BUDGET)
        burst = INGRESS_BUDGET;
    if (e->refusal_rate.due > e->now && burst > REFUSED_BURST_BYTES)
        burst = REFUSED_BURST_BYTES;
    if (burst < LEAST_BURST_BYTES)
        burst = LEAST_BURST_BYTES;
    return (uint32_t)burst;
}

/* Write the header of the frame in a record that has room for it. */
static void infer_header(const struct engine *e, uint8_t *record)
{
    uint8_t *vnet = record + LENGTH_BYTES;
    infer(vnet, vnet + VNET_BYTES, load_be32(record) - VNET_BYTES, e->vm.infer_mtu);
}

static uint32_t switch_unpacked(struct engine *e, const uint8_t *bytes, uint32_t available, enum record_status *status)
{
    enum record_status all_whole;
    uint8_t *records = e->in.records;
    struct framing framing = {.prefix = e->vm.kind == KIND_STREAM16 ? LENGTH16_BYTES : LENGTH_BYTES,
                              .gap = vm_header_bytes(&e->vm)};
    uint32_t used, done = framing_unpack(framing, bytes, available, records, &used, status);
    for (uint32_t at = 0; framing.gap != 0 && at < used; at += LENGTH_BYTES + load_be32(records + at))
        infer_header(e, records + at);
    switch_records(e, records, used, &all_whole);
    return done;
}

static bool poll_stream(struct engine *e)
{
    struct inbuf *in = &e->in;
    enum vm_status status = VM_OK;
    enum record_status record;
    int error = 0;
    inbuf_choose(e);
    port_in_doubt(e);
    long n = vm_read(&e->vm, in->burst + in->rest, burst_bytes(e), &status, &error);
    if (n < 0) {
        read_failed(e, status, error);
        return false;
    }
    if (n == 0) {
        port_link_down(e, "the VM closed the link", 0);
        return false;
    }
    uint32_t bytes = in->rest + (uint32_t)n;
    uint32_t used = vm_sends_records(&e->vm) ? switch_records(e, in->burst, bytes, &record)
                                        : switch_unpacked(e, in->burst, bytes, &record);
    inbuf_keep_rest(in, used, bytes);
    if (UNLIKELY(record != RECORD_PARTIAL))
        bad_length(e, record);
    return true;
}

/* Does the header ask for something that its driver has not negotiated? */
static bool asks_too_much(const struct engine *e, const uint8_t *vnet, uint32_t bytes)
{
    return e->sends != TAKES_ALL && vnet[1] != VNET_GSO_NONE
           && (offload_needs(vnet, vnet + VNET_BYTES, bytes - VNET_BYTES) & ~e->sends) != 0;
}

/* Check `bytes` at record + LENGTH_BYTES as a frame: the counter to charge, or NULL if it is good. */
static uint64_t *fault_of(struct engine *e, const uint8_t *record, uint32_t bytes, bool truncated)
{
    uint32_t header = vm_header_bytes(&e->vm);
    if (UNLIKELY(truncated || bytes > MAX_FRAME))
        return &e->count.oversize;
    if (UNLIKELY(bytes < header + MIN_FRAME))
        return &e->count.runt;
    const uint8_t *vnet = record + LENGTH_BYTES;
    bool unsound = header != 0 && e->vm.infer_mtu == 0
                   && (!offload_is_sound(vnet, vnet + VNET_BYTES, bytes - VNET_BYTES) || asks_too_much(e, vnet, bytes));
    return unsound ? &e->count.offload : NULL;
}

/* Write the prefix of `bytes` at record + LENGTH_BYTES; false if they are not a frame (counted). */
static bool seal_record(struct engine *e, uint8_t *record, uint32_t bytes, bool truncated)
{
    uint64_t *counter = fault_of(e, record, bytes, truncated);
    if (LIKELY(counter == NULL)) {
        store_be32(record, bytes);
        return true;
    }
    uint32_t header = vm_header_bytes(&e->vm), frame_bytes = bytes > header ? bytes - header : 0;
    e->count.rx_frames++;
    e->count.rx_bytes += frame_bytes;
    port_drop(e, record_frame(record) + header, frame_bytes, counter);
    return false;
}

/* A frame a call, each to its place in the burst. */
static bool poll_frames(struct engine *e)
{
    enum vm_status status = VM_OK;
    enum record_status record;
    int error = 0;
    uint32_t used = 0, reads = 0, missing = vm_takes_headers(&e->vm) ? 0 : VNET_BYTES;
    uint32_t at = LENGTH_BYTES + missing;
    bool large = false;
    inbuf_choose(e);
    while (used + SLOT_BYTES <= INGRESS_BUDGET && reads < MAX_SPANS) {
        long n = vm_read(&e->vm, e->in.burst + used + at, SLOT_BYTES - at, &status, &error);
        if (n < 0)
            break;
        reads++;
        if (!seal_record(e, e->in.burst + used, missing + (uint32_t)n, false))
            continue;
        if (missing != 0)
            infer_header(e, e->in.burst + used);
        large = large || is_large(e, (uint32_t)n);
        used += at + (uint32_t)n;
    }
    switch_records(e, e->in.burst, used, &record);
    if (reads == 0)
        read_failed(e, status, error);
    else
        e->in.large = large;
    return reads > 0;
}

/* A chain without a frame costs as much as one with a frame. */
#define MOST_CHAINS 1024u

/* Chains go back to the driver after the frames are in rings and before they are published: a worker killed in
   between loses the burst, which is better than sending it twice. */
static bool poll_queue(struct engine *e)
{
    enum record_status record;
    uint32_t used = 0, chains = 0, most = burst_bytes(e);
    int64_t n = 0;
    inbuf_choose(e);
    while (used < most && used + SLOT_BYTES <= INGRESS_BUDGET && chains < MOST_CHAINS
           && (n = vhost_read(e->vhost, e->in.burst + used + LENGTH_BYTES, MAX_FRAME)) >= 0) {
        bool whole = n <= MAX_FRAME;
        chains++;
        if (seal_record(e, e->in.burst + used, whole ? (uint32_t)n : MAX_FRAME, !whole))
            used += LENGTH_BYTES + (uint32_t)n;
    }
    switch_records(e, e->in.burst, used, &record);
    vhost_from_done(e->vhost);
    return chains > 0;
}

static bool poll_datagrams(struct engine *e)
{
    struct slot_read read[SLOTS];
    enum vm_status status = VM_OK;
    enum record_status record;
    int error = 0;
    uint32_t header = vm_header_bytes(&e->vm);
    bool large = false;
    inbuf_choose_own(&e->in);
    int n = vm_read_datagrams(&e->vm, e->in.bytes, LENGTH_BYTES + header, read, &status, &error);
    if (n < 0)
        read_failed(e, status, error);
    bool gone = n > 0 && read[n - 1].bytes == 0 && e->vm.kind == KIND_SEQPACKET && vm_hung_up(&e->vm);
    while (gone && n > 0 && read[n - 1].bytes == 0)
        n--;
    for (int i = 0; i < n; i++) {
        uint8_t *slot = e->in.bytes + (size_t)i * SLOT_BYTES;
        if (!seal_record(e, slot, header + read[i].bytes, read[i].truncated))
            continue;
        if (header != 0)
            infer_header(e, slot);
        large = large || is_large(e, read[i].bytes);
        switch_records(e, slot, LENGTH_BYTES + header + read[i].bytes, &record);
    }
    if (n > 0)
        e->in.large = large;
    if (UNLIKELY(gone))
        port_link_down(e, "the VM closed the link", 0);
    return n > 0;
}

bool ingress_poll(struct engine *e)
{
    uint64_t before = e->count.rx_bytes;
    bool worked;
    if (vm_is_stream(&e->vm))
        worked = poll_stream(e);
    else if (e->vhost != NULL)
        worked = poll_queue(e);
    else
        worked = comes_in_frames(e) ? poll_frames(e) : poll_datagrams(e);
    rate_limit_charge(&e->byte_rate, e->count.rx_bytes - before, e->now);
    return worked;
}

uint64_t ingress_resumes(const struct engine *e)
{
    uint64_t resumes = rate_limit_resumes(&e->byte_rate), pardoned = rate_limit_resumes(&e->refusal_rate);
    if (pardoned > resumes)
        resumes = pardoned;
    return resumes > e->now ? resumes : 0;
}
