#include "port/port.h"

#include <stdio.h>

void port_link_down(struct engine *e, const char *what, int error)
{
    if (e->down)
        return;
    e->down = true;
    waiter_remove(&e->waiter, e->vm.fd);
    if (error != 0)
        snprintf(e->link_error, sizeof e->link_error, "%s: %s", what, vm_error_text(error));
    else
        snprintf(e->link_error, sizeof e->link_error, "%s", what);
}
