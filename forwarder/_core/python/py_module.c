/* The module: its functions, its constants and the types that the other files make. */
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "capture/capture_ring.h"
#include "engine/engine.h"
#include "offload/infer.h"
#include "offload/offload.h"
#include "packet/flow.h"
#include "python/py_types.h"
#include "shared/stats_page.h"
#include "system/tap.h"

static PyObject *descriptor(int fd)
{
    return fd < 0 ? py_os_error() : PyLong_FromLong(fd);
}

static PyObject *core_doorbell_create(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return descriptor(doorbell_create());
}

static PyObject *core_waiter_create(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return descriptor(waiter_create());
}

static PyObject *core_ring_create(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned int size;
    struct ring_id id = {0};
    unsigned long long src_epoch, dst_epoch;
    if (!PyArg_ParseTuple(args, "IIKIK", &size, &id.src_port, &src_epoch, &id.dst_port, &dst_epoch))
        return NULL;
    id.src_epoch = src_epoch;
    id.dst_epoch = dst_epoch;
    struct ring_fds fds;
    if (ring_create(size, &id, &fds) < 0)
        return py_os_error();
    return Py_BuildValue("(ii)", fds.ring, fds.tail);
}

static PyObject *create_of_port(PyObject *args, int (*create)(uint32_t size, uint32_t port, uint64_t epoch))
{
    unsigned int size, port;
    unsigned long long epoch;
    if (!PyArg_ParseTuple(args, "IIK", &size, &port, &epoch))
        return NULL;
    return descriptor(create(size, port, epoch));
}

static PyObject *core_capture_create(PyObject *module, PyObject *args)
{
    (void)module;
    return create_of_port(args, capture_ring_create);
}

static PyObject *core_flood_create(PyObject *module, PyObject *args)
{
    (void)module;
    return create_of_port(args, flood_create);
}

static PyObject *core_stats_page_create(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    uint64_t secret;
    if (getentropy(&secret, sizeof secret) < 0)
        return py_os_error();
    return descriptor(stats_page_create(secret));
}

static PyObject *core_tap_open(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    const char *mac = NULL;
    Py_ssize_t mac_bytes = MAC_BYTES;
    int netns = -1;
    char actual[IFNAMSIZ] = "";
    if (!PyArg_ParseTuple(args, "s|iy#", &name, &netns, &mac, &mac_bytes))
        return NULL;
    if (mac_bytes != MAC_BYTES)
        return PyErr_Format(PyExc_ValueError, "a MAC address of %zd bytes", mac_bytes);
    int fd = tap_open(name, netns, (const uint8_t *)mac, actual);
    if (fd < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
    return Py_BuildValue("is", fd, actual);
}

static PyObject *core_dissolve(PyObject *module, PyObject *args)
{
    (void)module;
    int fd;
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    if (connect(fd, &none, sizeof none.sa_family) < 0)
        return py_os_error();
    Py_RETURN_NONE;
}

static PyObject *core_finish_offload(PyObject *module, PyObject *args)
{
    (void)module;
    static uint8_t record[MAX_RECORD]; /* under the GIL */
    const char *bytes;
    Py_ssize_t count;
    struct offload offload;
    if (!PyArg_ParseTuple(args, "y#", &bytes, &count))
        return NULL;
    const uint8_t *vnet = (const uint8_t *)bytes;
    if (count < (Py_ssize_t)(VNET_BYTES + MIN_FRAME) || count > (Py_ssize_t)MAX_FRAME
        || !offload_is_sound(vnet, vnet + VNET_BYTES, (uint32_t)count - VNET_BYTES)
        || !offload_open(&offload, vnet, (uint32_t)count))
        return PyErr_Format(PyExc_ValueError, "an offload that makes no sense");
    PyObject *frames = PyList_New(0);
    while (frames != NULL && !offload_is_done(&offload)) {
        uint32_t written = offload_next(&offload, record);
        PyObject *frame = PyBytes_FromStringAndSize((const char *)record_frame(record), written - LENGTH_BYTES);
        if (frame == NULL || PyList_Append(frames, frame) < 0)
            Py_CLEAR(frames);
        Py_XDECREF(frame);
    }
    return frames;
}

static PyObject *core_shorten_offload(PyObject *module, PyObject *args)
{
    (void)module;
    static uint8_t vnet[MAX_FRAME]; /* under the GIL */
    const char *bytes;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y#", &bytes, &count))
        return NULL;
    if (count < (Py_ssize_t)(VNET_BYTES + MIN_FRAME) || count > (Py_ssize_t)MAX_FRAME)
        return PyErr_Format(PyExc_ValueError, "a frame behind its header has 24 to MAX_FRAME bytes");
    memcpy(vnet, bytes, (size_t)count);
    return PyBytes_FromStringAndSize((const char *)vnet, offload_shorten(vnet, (uint32_t)count));
}

static PyObject *core_infer_offload(PyObject *module, PyObject *args)
{
    (void)module;
    const char *frame;
    Py_ssize_t count;
    unsigned int mtu;
    uint8_t vnet[VNET_BYTES];
    if (!PyArg_ParseTuple(args, "y#I", &frame, &count, &mtu))
        return NULL;
    if (count < (Py_ssize_t)MIN_FRAME || count > (Py_ssize_t)MAX_FRAME)
        return PyErr_Format(PyExc_ValueError, "a frame has MIN_FRAME to MAX_FRAME bytes");
    infer(vnet, (const uint8_t *)frame, (uint32_t)count, mtu);
    return PyBytes_FromStringAndSize((const char *)vnet, VNET_BYTES);
}

static PyObject *core_flow_of(PyObject *module, PyObject *args)
{
    (void)module;
    const char *frame;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y#", &frame, &count))
        return NULL;
    if (count < (Py_ssize_t)MIN_FRAME || count > (Py_ssize_t)MAX_FRAME)
        return PyErr_Format(PyExc_ValueError, "a frame has MIN_FRAME to MAX_FRAME bytes");
    return PyLong_FromUnsignedLong(flow_of((const uint8_t *)frame, (uint32_t)count));
}

static PyMethodDef functions[] = {
    {"doorbell_create", core_doorbell_create, METH_NOARGS, NULL},
    {"waiter_create", core_waiter_create, METH_NOARGS, NULL},
    {"ring_create", core_ring_create, METH_VARARGS, NULL},
    {"capture_create", core_capture_create, METH_VARARGS, NULL},
    {"flood_create", core_flood_create, METH_VARARGS, NULL},
    {"stats_page_create", core_stats_page_create, METH_NOARGS, NULL},
    {"tap_open", core_tap_open, METH_VARARGS, NULL},
    {"dissolve", core_dissolve, METH_VARARGS, NULL},
    {"finish_offload", core_finish_offload, METH_VARARGS, NULL},
    {"shorten_offload", core_shorten_offload, METH_VARARGS, NULL},
    {"infer_offload", core_infer_offload, METH_VARARGS, NULL},
    {"flow_of", core_flow_of, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "LAYOUT", LAYOUT_VERSION) < 0
                   || PyModule_AddIntConstant(module, "MAX_PORTS", MAX_PORTS) < 0
                   || PyModule_AddIntConstant(module, "MIN_FRAME", MIN_FRAME) < 0
                   || PyModule_AddIntConstant(module, "MAX_FRAME", MAX_FRAME) < 0
                   || PyModule_AddIntConstant(module, "LARGEST_FRAME", LARGEST_FRAME) < 0
                   || PyModule_AddIntConstant(module, "LINK_BYTES", LINK_BYTES) < 0
                   || PyModule_AddIntConstant(module, "TAKES_SUM", TAKES_SUM) < 0
                   || PyModule_AddIntConstant(module, "TAKES_TSO4", TAKES_TSO4) < 0
                   || PyModule_AddIntConstant(module, "TAKES_TSO6", TAKES_TSO6) < 0
                   || PyModule_AddIntConstant(module, "TAKES_ECN", TAKES_ECN) < 0
                   || PyModule_AddIntConstant(module, "TAKES_USO4", TAKES_USO4) < 0
                   || PyModule_AddIntConstant(module, "TAKES_USO6", TAKES_USO6) < 0
                   || PyModule_AddIntConstant(module, "TAKES_LARGE", TAKES_LARGE) < 0
                   || PyModule_AddIntConstant(module, "EVENT_CONTROL", EVENT_CONTROL) < 0
                   || PyModule_AddIntConstant(module, "EVENT_LINK_DOWN", EVENT_LINK_DOWN) < 0
                   || PyModule_AddIntConstant(module, "EVENT_WANTED", EVENT_WANTED) < 0
                   || PyModule_AddIntConstant(module, "EVENT_UNFINISHED", EVENT_UNFINISHED) < 0
                   || PyModule_AddIntConstant(module, "EVENT_GUARDED", EVENT_GUARDED) < 0
               ? -1
               : 0;
}

static int add_counters(PyObject *module)
{
    PyObject *names = PyTuple_New((Py_ssize_t)COUNTER_COUNT);
    for (size_t i = 0; names != NULL && i < COUNTER_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(counter_names[i]);
        if (name == NULL || PyTuple_SetItem(names, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(names);
    }
    int added = names == NULL ? -1 : PyModule_AddObjectRef(module, "COUNTERS", names);
    Py_XDECREF(names);
    return added;
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "forwarder._core", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (add_constants(module) < 0 || add_counters(module) < 0 || py_add_capture_reader(module) < 0 || py_add_cell(module) < 0
        || py_add_engine(module) < 0 || py_add_stats_page(module) < 0
        || py_add_datagrams(module) < 0 || py_add_early_drop(module) < 0 || py_add_fdb(module) < 0
        || py_add_ring_ends(module) < 0 || py_add_fork(module) < 0 || py_add_splices(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
