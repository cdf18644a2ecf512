#include "python/py_engine_vhost.h"

#include <errno.h>
#include <sys/socket.h>

#include "engine/guest_queues.h"

/* A header and the longest payload that is read (workers/vhost/messages.py). */
#define MOST_MESSAGE (12 + 4096)

/* The engine of a guest with queues, or NULL with an exception set. */
static struct engine *vhost_engine_of(PyObject *self)
{
    struct engine *e = engine_of(self);
    if (e != NULL && e->vhost == NULL) {
        PyErr_SetString(PyExc_ValueError, "the VM of this engine has no queues");
        return NULL;
    }
    return e;
}

static bool is_queue(unsigned which)
{
    if (which < QUEUES)
        return true;
    PyErr_Format(PyExc_ValueError, "there is no queue %u", which);
    return false;
}

/* A wrong region is the front-end's mistake, except for the last two errors. */
static PyObject *raise_fault(enum memory_fault fault)
{
    static const char *const words[] = {
        [MEMORY_ADDRESS] = "a region is empty, or ends beyond the last address",
        [MEMORY_OVERLAP] = "two regions overlap",
        [MEMORY_FILE] = "the descriptor of a region is not a regular file",
        [MEMORY_SHORT] = "the file of a region ends before the region does",
    };
    if (fault == MEMORY_TOO_MANY)
        errno = ENOSPC;
    if (fault == MEMORY_TOO_MANY || fault == MEMORY_REFUSED)
        return py_os_error();
    PyErr_SetString(PyExc_ValueError, words[fault]);
    return NULL;
}

PyObject *py_engine_vhost_add_region(PyObject *self, PyObject *args)
{
    unsigned long long guest, bytes, front_end, offset;
    int fd;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "KKKKi", &guest, &bytes, &front_end, &offset, &fd))
        return NULL;
    enum memory_fault fault = memory_add(&e->vhost->memory, guest, front_end, bytes, offset, fd);
    if (fault != MEMORY_FINE)
        return raise_fault(fault);
    vhost_memory_changed(e->vhost);
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_remove_region(PyObject *self, PyObject *args)
{
    unsigned long long guest, bytes, front_end;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "KKK", &guest, &bytes, &front_end))
        return NULL;
    memory_remove(&e->vhost->memory, guest, front_end, bytes);
    vhost_memory_changed(e->vhost);
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_set_features(PyObject *self, PyObject *args)
{
    unsigned long long features;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "K", &features))
        return NULL;
    queues_set_features(e, features);
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_start_queue(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"which", "entries", "index", "descriptors", "available", "used",
                            "kick",  "call",    "resumed", NULL};
    unsigned which, entries, index;
    unsigned long long descriptors, available, used;
    int kick, call, resumed;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "$IIIKKKiip", names, &which, &entries, &index, &descriptors,
                                        &available, &used, &kick, &call, &resumed)
        || !is_queue(which))
        return NULL;
    if (entries == 0 || entries > MOST_ENTRIES || (entries & (entries - 1)) != 0 || index > UINT16_MAX)
        return PyErr_Format(PyExc_ValueError, "no queue has %u entries, or an index of %u", entries, index);
    struct queue_place place = {
        .entries = entries, .descriptors = descriptors, .available = available, .used = used};
    if (queues_start(e, which, &place, (uint16_t)index, resumed != 0, kick, call) < 0)
        return py_os_error();
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_stop_queue(PyObject *self, PyObject *args)
{
    unsigned which;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "I", &which) || !is_queue(which))
        return NULL;
    return PyLong_FromUnsignedLong(queues_stop(e, which));
}

PyObject *py_engine_vhost_enable_queue(PyObject *self, PyObject *args)
{
    unsigned which;
    int enabled;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "Ip", &which, &enabled) || !is_queue(which))
        return NULL;
    e->vhost->queue[which].enabled = enabled != 0;
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_set_call(PyObject *self, PyObject *args)
{
    unsigned which;
    int call;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "Ii", &which, &call) || !is_queue(which))
        return NULL;
    queues_set_call(e, which, call);
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_note(PyObject *self, PyObject *args)
{
    unsigned number;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "I", &number))
        return NULL;
    atomic_store_explicit(&e->stats->session_number, number, memory_order_seq_cst);
    Py_RETURN_NONE;
}

PyObject *py_engine_vhost_noted(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL)
        return NULL;
    return Py_BuildValue("II", atomic_load_explicit(&e->stats->session_number, memory_order_relaxed),
                         atomic_load_explicit(&e->stats->answered, memory_order_relaxed));
}

/* The note comes first: to be killed on the way out of the call, which wakes the front-end, is likelier than between
   two instructions. */
PyObject *py_engine_vhost_answer(PyObject *self, PyObject *args)
{
    int fd;
    unsigned digest;
    const char *reply;
    Py_ssize_t bytes;
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "iIy#", &fd, &digest, &reply, &bytes))
        return NULL;
    atomic_store_explicit(&e->stats->answered, digest, memory_order_seq_cst);
    ssize_t sent = send(fd, reply, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? py_os_error() : PyLong_FromSsize_t(sent);
}

PyObject *py_engine_vhost_take_out(PyObject *self, PyObject *args)
{
    int fd;
    unsigned bytes;
    char message[MOST_MESSAGE];
    struct engine *e = vhost_engine_of(self);
    if (e == NULL || !PyArg_ParseTuple(args, "iI", &fd, &bytes))
        return NULL;
    if (bytes > sizeof message)
        return PyErr_Format(PyExc_ValueError, "no message has %u bytes", bytes);
    ssize_t taken = bytes > 0 ? recv(fd, message, bytes, MSG_DONTWAIT) : 0;
    atomic_store_explicit(&e->stats->answered, 0, memory_order_seq_cst);
    return taken < 0 ? py_os_error() : PyLong_FromSsize_t(taken);
}
