/* Methods of Engine for the guard of its VM, and for what it asks the gateway. */
#ifndef BULKHEAD_PY_ENGINE_GUARD_H
#define BULKHEAD_PY_ENGINE_GUARD_H

#include "python/py_engine_object.h"

PyObject *py_engine_set_guard(PyObject *self, PyObject *enabled);
PyObject *py_engine_limit_questions(PyObject *self, PyObject *gateway);
PyObject *py_engine_limit_sources(PyObject *self, PyObject *unused);
PyObject *py_engine_set_owners(PyObject *self, PyObject *owners);
PyObject *py_engine_guarded(PyObject *self, PyObject *unused);

#endif
