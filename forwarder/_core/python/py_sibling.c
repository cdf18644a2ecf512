/* The Python face of sibling.h, for the template of workers. */
#include <errno.h>

#include "python/py_types.h"
#include "system/sibling.h"

static PyObject *core_fork_sibling(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyOS_BeforeFork();
    int pid = sibling_fork(), error = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    errno = error;
    return pid < 0 ? py_os_error() : PyLong_FromLong(pid);
}

static PyObject *core_end_with_parent(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (end_with_parent() < 0)
        return py_os_error();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"fork_sibling", core_fork_sibling, METH_NOARGS, NULL},
    {"end_with_parent", core_end_with_parent, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int py_add_sibling(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
