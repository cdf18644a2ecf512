/* Methods of Engine for a guest's memory and queues, as a vhost-user front-end sets them. */
#ifndef BULKHEAD_PY_ENGINE_VHOST_H
#define BULKHEAD_PY_ENGINE_VHOST_H

#include "python/py_engine_object.h"

PyObject *py_engine_vhost_add_region(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_remove_region(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_set_features(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_start_queue(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *py_engine_vhost_stop_queue(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_enable_queue(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_set_call(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_note(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_noted(PyObject *self, PyObject *unused);
PyObject *py_engine_vhost_answer(PyObject *self, PyObject *args);
PyObject *py_engine_vhost_take_out(PyObject *self, PyObject *args);

#endif
