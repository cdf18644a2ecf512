/* The Engine object, shared by the files that hold its methods. */
#ifndef BULKHEAD_PY_ENGINE_OBJECT_H
#define BULKHEAD_PY_ENGINE_OBJECT_H

#include "python/py_core.h"

#include "engine/engine.h"

struct py_engine {
    PyObject_HEAD
    struct engine *engine;
};

/* The engine, or NULL with an exception set if it is closed. */
static inline struct engine *engine_of(PyObject *self)
{
    struct engine *engine = ((struct py_engine *)self)->engine;
    if (engine == NULL || engine->stats == NULL) {
        PyErr_SetString(PyExc_ValueError, "the engine is closed");
        return NULL;
    }
    return engine;
}

#endif
