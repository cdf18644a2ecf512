"""Names the compiled core: setup.cfg, which holds everything else, has no key for an extension."""

from glob import glob

from setuptools import Extension, setup

LIMITED_API = "0x030A0000"

setup(
    ext_modules=[
        Extension(
            "forwarder._core",
            sources=sorted(glob("forwarder/_core/*/*.c")),
            depends=sorted(glob("forwarder/_core/**/*.h", recursive=True)),
            include_dirs=["forwarder/_core"],
            define_macros=[("Py_LIMITED_API", LIMITED_API), ("_GNU_SOURCE", None)],
            extra_compile_args=["-std=c11", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
