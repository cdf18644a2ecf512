/* The Engine object, shared by the files that hold its methods. */
#ifndef BULKHEAD_PY_ENGINE_H
#define BULKHEAD_PY_ENGINE_H

#include "python/py_core.h"

#include "engine/engine.h"

struct py_engine {
    PyObject_HEAD
    struct engine *engine;
};

/* The engine, or NULL with an exception set if it is closed. */
struct engine *engine_of(PyObject *self);

/* None, or OSError where status < 0. */
PyObject *result_of(int status);

/* py_engine_peers.c */
PyObject *py_engine_wanted(PyObject *self, PyObject *unused);
PyObject *py_engine_peer_join(PyObject *self, PyObject *args);
PyObject *py_engine_peer_leave(PyObject *self, PyObject *args);
PyObject *py_engine_attach_flood(PyObject *self, PyObject *args);
PyObject *py_engine_attach_tx(PyObject *self, PyObject *args);
PyObject *py_engine_attach_rx(PyObject *self, PyObject *args);
PyObject *py_engine_give_up_ring(PyObject *self, PyObject *args);
PyObject *py_engine_pin(PyObject *self, PyObject *args);
PyObject *py_engine_set_flood_unknown(PyObject *self, PyObject *args);
PyObject *py_engine_set_limits(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *py_engine_set_reach(PyObject *self, PyObject *args);
PyObject *py_engine_age(PyObject *self, PyObject *args);

#endif
