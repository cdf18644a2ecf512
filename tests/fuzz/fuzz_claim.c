/* Fuzz target: one frame, read for what it claims.

   Nothing behind its end is looked at. What the quick look says no to claims nothing, or the quick look would be a way
   round the guard. And a VLAN tag in front changes nothing but that there may be too many of them: then it is hidden. */
#include <stdlib.h>

#include "packet/claim.h"
#include "packet/frame.h"

static void must(bool done)
{
    if (!done)
        abort();
}

/* In memory that ends where the frame does. */
static struct claim read_copy(const uint8_t *frame, uint32_t bytes)
{
    struct claim claim;
    uint8_t *copy = malloc(bytes);
    must(copy != NULL);
    memcpy(copy, frame, bytes);
    claim_read(&claim, copy, bytes);
    must(claim_possible(copy, bytes) || claim.kind == CLAIM_NOTHING);
    must((claim.kind == CLAIM_ADDRESS) == (claim.count > 0) && claim.count <= 2);
    if (claim.mac != NULL)
        must(claim.mac >= copy + ADDRESSES_BYTES && claim.mac + MAC_BYTES <= copy + bytes);
    free(copy);
    return claim;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t tagged[MAX_FRAME + TAG_BYTES];
    static const uint8_t tag[TAG_BYTES] = {0x81, 0x00, 0x00, 0x05};
    if (size < MIN_FRAME || size > MAX_FRAME)
        return 0;
    struct claim plain = read_copy(data, (uint32_t)size);
    memcpy(tagged, data, ADDRESSES_BYTES);
    memcpy(tagged + ADDRESSES_BYTES, tag, TAG_BYTES);
    memcpy(tagged + ADDRESSES_BYTES + TAG_BYTES, data + ADDRESSES_BYTES, size - ADDRESSES_BYTES);
    struct claim behind = read_copy(tagged, (uint32_t)size + TAG_BYTES);
    must(behind.kind == plain.kind || behind.kind == CLAIM_HIDDEN);
    must(behind.count == plain.count || behind.kind == CLAIM_HIDDEN);
    return 0;
}
