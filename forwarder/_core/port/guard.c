#include "port/guard.h"

#include <stdlib.h>

#include "packet/frame.h"

const char *const guard_kind_names[GUARD_KINDS] = {"group", "pause", "router", "server", "address", "hidden", "sources"};

static int by_address(const void *one, const void *other)
{
    return memcmp(((const struct guard_owner *)one)->address, ((const struct guard_owner *)other)->address,
                  ADDRESS_BYTES);
}

void guard_set_owners(struct guard *guard, struct guard_owner *owners, uint32_t count)
{
    free(guard->owners);
    guard->owners = owners;
    guard->count = count;
    if (count > 0)
        qsort(owners, count, sizeof *owners, by_address);
}

void guard_close(struct guard *guard)
{
    guard_set_owners(guard, NULL, 0);
}

static bool refuse(struct guard *guard, enum guard_kind kind, const uint8_t *src, const uint8_t *address)
{
    struct guard_note *note = &guard->notes[kind];
    if (!note->noted) {
        note->noted = guard->news = true;
        memcpy(note->source, src, MAC_BYTES);
        if (address != NULL)
            memcpy(note->address, address, ADDRESS_BYTES);
    }
    return true;
}

void guard_note_source(struct guard *guard, const uint8_t *src, const uint8_t *address)
{
    refuse(guard, GUARD_SOURCES, src, address);
}

bool guard_refuses_addresses(struct guard *guard, const uint8_t *dst, const uint8_t *src)
{
    static const uint8_t pause[MAC_BYTES] = {0x01, 0x80, 0xc2, 0, 0, 0x01};
    if (UNLIKELY(!mac_is_station(src)))
        return refuse(guard, GUARD_GROUP, src, NULL);
    return UNLIKELY(memcmp(dst, pause, MAC_BYTES) == 0) && refuse(guard, GUARD_PAUSE, src, NULL);
}

/* The port that an address belongs to; 0: none. */
static uint32_t owner_of(const struct guard *guard, const uint8_t *address)
{
    struct guard_owner key;
    memcpy(key.address, address, ADDRESS_BYTES);
    const struct guard_owner *found =
        guard->count == 0 ? NULL : bsearch(&key, guard->owners, guard->count, sizeof key, by_address);
    return found == NULL ? 0 : found->port;
}

static bool is_pinned_elsewhere(const struct fdb *fdb, const uint8_t *mac, uint32_t port)
{
    uint32_t behind = fdb_lookup(fdb, mac);
    return behind != 0 && behind != port && fdb_is_pinned_to(fdb, mac, behind);
}

static bool refuse_address(struct guard *guard, uint32_t port, const struct fdb *fdb, const struct claim *claim,
                           const uint8_t *src)
{
    for (uint32_t i = 0; i < claim->count; i++) {
        uint32_t owner = owner_of(guard, claim->address[i]);
        if (owner != 0 && owner != port)
            return refuse(guard, GUARD_ADDRESS, src, claim->address[i]);
    }
    return claim->mac != NULL && is_pinned_elsewhere(fdb, claim->mac, port)
           && refuse(guard, GUARD_ADDRESS, src, NULL);
}

bool guard_refuses(struct guard *guard, uint32_t port, const struct fdb *fdb, const uint8_t *frame, uint32_t bytes)
{
    struct claim claim;
    const uint8_t *src = frame_src(frame);
    claim_read(&claim, frame, bytes);
    if (claim.kind == CLAIM_PAUSE)
        return refuse(guard, GUARD_PAUSE, src, NULL);
    if (!guard->enabled)
        return false;
    switch (claim.kind) {
    case CLAIM_ROUTER:
        return refuse(guard, GUARD_ROUTER, src, NULL);
    case CLAIM_SERVER:
        return refuse(guard, GUARD_SERVER, src, NULL);
    case CLAIM_HIDDEN:
        return refuse(guard, GUARD_HIDDEN, src, NULL);
    case CLAIM_ADDRESS:
        return refuse_address(guard, port, fdb, &claim, src);
    default:
        return false;
    }
}
