/* Fuzz target: a flood ring whose writer is hostile. Nothing may be read outside of the mapping, a frame handed on
   must have a length that a frame can have, and a reader always comes to an end. */
#include <stdlib.h>
#include <unistd.h>

#include "shared/flood.h"

#define SIZE (1u << 18)

static void scribble(struct flood_tx *tx, uint64_t cursor, const uint8_t *step)
{
    uint16_t offset;
    memcpy(&offset, step + 2, sizeof offset);
    uint8_t *target = step[1] & 1 ? tx->shm.data + ((cursor + offset) & (SIZE - 1))
                                  : (uint8_t *)tx->shm.header + offset % (sizeof(struct flood_shared) - 8);
    memcpy(target, step + 4, 8);
}

static void read_all(struct flood_rx *rx, uint8_t *out)
{
    struct flood_record record;
    uint64_t lost = 0;
    for (int i = 0; i < 1000 && flood_next(rx, out, MAX_FRAME, &record, &lost) == FLOOD_FRAME; i++)
        if (record.bytes > MAX_FRAME || (record.bytes < MIN_FRAME && record.kind != FLOOD_REPLY))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[MAX_FRAME], frame[MAX_FRAME];
    struct flood_tx tx;
    struct flood_rx rx;
    int fd = flood_create(SIZE, 1, 1);
    if (fd < 0 || flood_tx_open(&tx, fd, 1, 1) < 0 || flood_rx_open(&rx, fd, 1, 1, true) < 0)
        abort();
    for (; size >= 12; data += 12, size -= 12) {
        uint16_t argument;
        memcpy(&argument, data + 2, sizeof argument);
        if (data[0] % 4 == 0) {
            flood_put(&tx, frame, MIN_FRAME + argument % 2000u, FLOOD_GROUP);
            flood_publish(&tx);
        } else if (data[0] % 4 == 1) {
            read_all(&rx, out);
        } else {
            scribble(&tx, rx.cursor, data);
        }
    }
    read_all(&rx, out);
    flood_rx_close(&rx);
    flood_tx_close(&tx);
    close(fd);
    return 0;
}
