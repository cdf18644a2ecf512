/* The Python face of fork.h, for the template of workers and the gateway. */
#include <errno.h>

#include "python/py_types.h"
#include "system/fork.h"

/* The result of a fork, for which Python has been prepared (PyOS_BeforeFork). */
static PyObject *forked(int pid)
{
    int error = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    errno = error;
    return pid < 0 ? py_os_error() : PyLong_FromLong(pid);
}

static PyObject *core_fork_sibling(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyOS_BeforeFork();
    return forked(fork_sibling());
}

static PyObject *core_fork_into_namespaces(PyObject *module, PyObject *user)
{
    (void)module;
    int with_user = PyObject_IsTrue(user);
    if (with_user < 0)
        return NULL;
    PyOS_BeforeFork();
    return forked(fork_into_namespaces(with_user));
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
    {"fork_into_namespaces", core_fork_into_namespaces, METH_O, NULL},
    {"end_with_parent", core_end_with_parent, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int py_add_fork(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
