/* Engine: the forwarding engine as Python drives it. */
#include "python/py_capture.h"
#include "python/py_engine_guard.h"
#include "python/py_engine_peers.h"
#include "python/py_engine_vhost.h"
#include "python/py_types.h"

static int kind_of(const char *name)
{
    static const char *const names[] = {"stream", "stream16", "seqpacket", "dgram", "tap", "vhost"};
    for (int kind = KIND_STREAM; kind <= KIND_VHOST; kind++)
        if (strcmp(name, names[kind]) == 0)
            return kind;
    PyErr_Format(PyExc_ValueError, "unknown kind of link: %s", name);
    return -1;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"port",           "epoch", "kind",  "vm",     "doorbell",
                            "flood_doorbell", "stats", "flood", "waiter", NULL};
    unsigned int port;
    unsigned long long epoch;
    const char *kind_name;
    int vm, doorbell, flood_doorbell, stats, flood, waiter = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IKsiiiii|$i", names, &port, &epoch, &kind_name, &vm, &doorbell,
                                     &flood_doorbell, &stats, &flood, &waiter))
        return NULL;
    int kind = kind_of(kind_name);
    if (kind < 0)
        return NULL;
    if (port == 0 || port >= MAX_PORTS)
        return PyErr_Format(PyExc_ValueError, "port %u is out of range", port);
    struct py_engine *self = (struct py_engine *)py_allocate(type);
    if (self == NULL)
        return NULL;
    self->engine = PyMem_Calloc(1, sizeof *self->engine);
    if (self->engine == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    struct engine *e = self->engine;
    e->port = port;
    e->epoch = epoch;
    e->doorbell = doorbell;
    e->bells.flood_doorbell = flood_doorbell;
    e->waiter.epoll = waiter;
    if (engine_open(e, (enum port_kind)kind, vm, stats, flood) == 0)
        return (PyObject *)self;
    py_os_error();
    Py_DECREF(self);
    return NULL;
}

static void engine_dealloc(PyObject *self)
{
    struct engine *engine = ((struct py_engine *)self)->engine;
    if (engine != NULL && engine->stats != NULL)
        engine_close(engine);
    PyMem_Free(engine);
    py_free(self);
}

static PyObject *engine_watch(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    int fd;
    if (e == NULL || !PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    return py_none_or_error(waiter_add_control(&e->waiter, fd));
}

static PyObject *engine_unwatch(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    int fd;
    if (e == NULL || !PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    return py_none_or_error(waiter_remove(&e->waiter, fd));
}

static PyObject *engine_run_method(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    double seconds;
    unsigned events;
    if (e == NULL || !PyArg_ParseTuple(args, "d", &seconds))
        return NULL;
    uint64_t timeout_ns = seconds > 0 ? (uint64_t)(seconds * (double)NS_PER_S) : 0;
    Py_BEGIN_ALLOW_THREADS
    events = engine_run(e, timeout_ns);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLong(events);
}

static PyObject *engine_hold_method(PyObject *self, PyObject *held)
{
    struct engine *e = engine_of(self);
    int truth = PyObject_IsTrue(held);
    if (e == NULL || truth < 0)
        return NULL;
    if (engine_hold(e, truth != 0) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *engine_pulse(PyObject *self, PyObject *args)
{
    struct engine *e = engine_of(self);
    double seconds;
    if (e == NULL || !PyArg_ParseTuple(args, "d", &seconds))
        return NULL;
    e->pulse_ns = (uint64_t)(seconds * (double)NS_PER_S);
    Py_RETURN_NONE;
}

static PyObject *engine_progress(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *e = engine_of(self);
    if (e == NULL)
        return NULL;
    return Py_BuildValue("KK", (unsigned long long)e->out.written, (unsigned long long)engine_queued(e));
}

static PyObject *engine_close_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *engine = ((struct py_engine *)self)->engine;
    if (engine != NULL && engine->stats != NULL)
        engine_close(engine);
    Py_RETURN_NONE;
}

static PyObject *engine_get_link_error(PyObject *self, void *unused)
{
    (void)unused;
    struct engine *engine = ((struct py_engine *)self)->engine;
    return PyUnicode_FromString(engine == NULL ? "" : engine->link_error);
}

static PyMethodDef methods[] = {
    {"watch", engine_watch, METH_VARARGS, NULL},
    {"unwatch", engine_unwatch, METH_VARARGS, NULL},
    {"run", engine_run_method, METH_VARARGS, NULL},
    {"pulse", engine_pulse, METH_VARARGS, NULL},
    {"capture", py_engine_capture, METH_VARARGS, NULL},
    {"end_capture", py_engine_end_capture, METH_VARARGS, NULL},
    {"end_captures", py_engine_end_captures, METH_NOARGS, NULL},
    {"hold", engine_hold_method, METH_O, NULL},
    {"wanted", py_engine_wanted, METH_NOARGS, NULL},
    {"peer_join", py_engine_peer_join, METH_VARARGS, NULL},
    {"peer_leave", py_engine_peer_leave, METH_VARARGS, NULL},
    {"attach_flood", (PyCFunction)(void (*)(void))py_engine_attach_flood, METH_VARARGS | METH_KEYWORDS, NULL},
    {"move_floods", py_engine_move_floods, METH_VARARGS, NULL},
    {"floods_are_over", py_engine_floods_are_over, METH_VARARGS, NULL},
    {"attach_tx", py_engine_attach_tx, METH_VARARGS, NULL},
    {"attach_rx", py_engine_attach_rx, METH_VARARGS, NULL},
    {"give_up_ring", py_engine_give_up_ring, METH_VARARGS, NULL},
    {"pin", py_engine_pin, METH_VARARGS, NULL},
    {"set_flood_unknown", py_engine_set_flood_unknown, METH_VARARGS, NULL},
    {"set_limits", (PyCFunction)(void (*)(void))py_engine_set_limits, METH_VARARGS | METH_KEYWORDS, NULL},
    {"set_reach", py_engine_set_reach, METH_VARARGS, NULL},
    {"set_guard", py_engine_set_guard, METH_O, NULL},
    {"limit_questions", py_engine_limit_questions, METH_O, NULL},
    {"limit_sources", py_engine_limit_sources, METH_NOARGS, NULL},
    {"set_owners", py_engine_set_owners, METH_O, NULL},
    {"guarded", py_engine_guarded, METH_NOARGS, NULL},
    {"infer", py_engine_infer, METH_VARARGS, NULL},
    {"limit", py_engine_limit, METH_VARARGS, NULL},
    {"take", py_engine_take, METH_VARARGS, NULL},
    {"idle_rings", py_engine_idle_rings, METH_NOARGS, NULL},
    {"detach_tx", py_engine_detach_tx, METH_VARARGS, NULL},
    {"detach_rx", py_engine_detach_rx, METH_VARARGS, NULL},
    {"age", py_engine_age, METH_VARARGS, NULL},
    {"vhost_add_region", py_engine_vhost_add_region, METH_VARARGS, NULL},
    {"vhost_remove_region", py_engine_vhost_remove_region, METH_VARARGS, NULL},
    {"vhost_set_features", py_engine_vhost_set_features, METH_VARARGS, NULL},
    {"vhost_start_queue", (PyCFunction)(void (*)(void))py_engine_vhost_start_queue, METH_VARARGS | METH_KEYWORDS, NULL},
    {"vhost_stop_queue", py_engine_vhost_stop_queue, METH_VARARGS, NULL},
    {"vhost_enable_queue", py_engine_vhost_enable_queue, METH_VARARGS, NULL},
    {"vhost_set_call", py_engine_vhost_set_call, METH_VARARGS, NULL},
    {"vhost_note", py_engine_vhost_note, METH_VARARGS, NULL},
    {"vhost_answer", py_engine_vhost_answer, METH_VARARGS, NULL},
    {"vhost_take_out", py_engine_vhost_take_out, METH_VARARGS, NULL},
    {"vhost_noted", py_engine_vhost_noted, METH_NOARGS, NULL},
    {"progress", engine_progress, METH_NOARGS, NULL},
    {"close", engine_close_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *engine_get_unfinished(PyObject *self, void *unused)
{
    (void)unused;
    struct engine *engine = ((struct py_engine *)self)->engine;
    return PyBool_FromLong(engine != NULL && engine->unfinished.noticed);
}

static PyGetSetDef properties[] = {{"link_error", engine_get_link_error, NULL, NULL, NULL},
                                   {"unfinished", engine_get_unfinished, NULL, NULL, NULL},
                                   {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, engine_new},
                              {Py_tp_dealloc, engine_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_getset, properties},
                              {0, NULL}};

static PyType_Spec spec = {
    .name = "forwarder._core.Engine", .basicsize = sizeof(struct py_engine), .flags = Py_TPFLAGS_DEFAULT, .slots = slots};

int py_add_engine(PyObject *module)
{
    return py_add_type(module, &spec, "Engine");
}
