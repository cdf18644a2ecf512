/* Methods of Engine that begin and end a capture. */
#ifndef BULKHEAD_PY_CAPTURE_H
#define BULKHEAD_PY_CAPTURE_H

#include "python/py_engine_object.h"

PyObject *py_engine_capture(PyObject *self, PyObject *args);
PyObject *py_engine_end_capture(PyObject *self, PyObject *args);
PyObject *py_engine_end_captures(PyObject *self, PyObject *unused);

#endif
