#include "relay/pipe_pool.h"

#include <fcntl.h>
#include <unistd.h>

int pipe_pool_borrow(struct pipe_pool *pool, struct pipe_ends *ends)
{
    if (pool->kept_count > 0) {
        *ends = pool->kept[--pool->kept_count];
    } else {
        int made[2];
        if (pipe2(made, O_NONBLOCK | O_CLOEXEC) < 0)
            return -1;
        /* Beyond the user's share of pipe memory it stays small, and is only slower. */
        (void)fcntl(made[1], F_SETPIPE_SZ, PIPE_BYTES);
        *ends = (struct pipe_ends){made[0], made[1], 0};
    }
    pool->lent++;
    return 0;
}

static void close_ends(const struct pipe_ends *ends)
{
    close(ends->out);
    close(ends->into);
}

void pipe_pool_give_back(struct pipe_pool *pool, struct pipe_ends *ends)
{
    if (ends->out < 0)
        return;
    pool->lent--;
    if (ends->held == 0 && pool->kept_count < PIPE_POOL_KEPT)
        pool->kept[pool->kept_count++] = *ends;
    else
        close_ends(ends);
    *ends = (struct pipe_ends){-1, -1, 0};
}

void pipe_pool_close(struct pipe_pool *pool)
{
    while (pool->kept_count > 0)
        close_ends(&pool->kept[--pool->kept_count]);
}
