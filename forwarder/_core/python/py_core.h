/* Shared by the Python-facing files. Limited API of CPython 3.10, so that one build serves every later one.

   All of it is called with the GIL held; only Engine.run and Splices.wait release it. A function that returns NULL or
   -1 has set an exception. */
#ifndef BULKHEAD_PY_CORE_H
#define BULKHEAD_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Make the type of `spec` and add it to the module under `name`. */
int py_add_type(PyObject *module, PyType_Spec *spec, const char *name);

/* Make an instance of a heap type; NULL: no memory. */
void *py_allocate(PyTypeObject *type);

/* Release an instance made by a heap type. */
void py_free(PyObject *self);

/* Set OSError from errno and return NULL. */
PyObject *py_os_error(void);

/* None, or OSError where status < 0. */
PyObject *py_none_or_error(int status);

#endif
