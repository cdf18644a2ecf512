/* Methods of Engine for changes of membership and of the operator's settings. */
#ifndef BULKHEAD_PY_ENGINE_PEERS_H
#define BULKHEAD_PY_ENGINE_PEERS_H

#include "python/py_engine_object.h"

PyObject *py_engine_wanted(PyObject *self, PyObject *unused);
PyObject *py_engine_peer_join(PyObject *self, PyObject *args);
PyObject *py_engine_peer_leave(PyObject *self, PyObject *args);
PyObject *py_engine_attach_flood(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *py_engine_attach_tx(PyObject *self, PyObject *args);
PyObject *py_engine_move_floods(PyObject *self, PyObject *args);
PyObject *py_engine_floods_are_over(PyObject *self, PyObject *args);
PyObject *py_engine_attach_rx(PyObject *self, PyObject *args);
PyObject *py_engine_give_up_ring(PyObject *self, PyObject *args);
PyObject *py_engine_pin(PyObject *self, PyObject *args);
PyObject *py_engine_set_flood_unknown(PyObject *self, PyObject *args);
PyObject *py_engine_set_limits(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *py_engine_set_reach(PyObject *self, PyObject *args);
PyObject *py_engine_infer(PyObject *self, PyObject *args);
PyObject *py_engine_limit(PyObject *self, PyObject *args);
PyObject *py_engine_take(PyObject *self, PyObject *args);
PyObject *py_engine_idle_rings(PyObject *self, PyObject *unused);
PyObject *py_engine_detach_tx(PyObject *self, PyObject *args);
PyObject *py_engine_detach_rx(PyObject *self, PyObject *args);
PyObject *py_engine_age(PyObject *self, PyObject *args);

#endif
