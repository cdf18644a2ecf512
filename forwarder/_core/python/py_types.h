/* The module's types, each made by a file of its own (py_ring.c makes two). 0, or -1 with an exception set. */
#ifndef BULKHEAD_PY_TYPES_H
#define BULKHEAD_PY_TYPES_H

#include "python/py_core.h"

int py_add_capture_reader(PyObject *module);
int py_add_engine(PyObject *module);
int py_add_stats_page(PyObject *module);
int py_add_cell(PyObject *module);
int py_add_datagrams(PyObject *module);
int py_add_early_drop(PyObject *module);
int py_add_fdb(PyObject *module);
int py_add_splices(PyObject *module);
int py_add_ring_ends(PyObject *module);
int py_add_fork(PyObject *module);

#endif
