/* SPDX-License-Identifier: MIT
 *
 * runtime-python.c - runtime.c's question to Python and numpy: a function whose body is Python
 *
 * All that is imported is imported before it serves.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../../proto/vfun.h"

static const char body[] =
    "import array, datetime, decimal, hashlib, json, math, random, re, time\n"
    "import numpy as np\n"
    "import numpy.fft, numpy.linalg, numpy.random\n"
    "def sorts():\n"
    "    x = [random.random() for i in range(100000)]\n"
    "    return sorted(x)[5] <= sorted(x)[6] and len(set(map(str, x))) > 90000\n"
    "def strings():\n"
    "    s = json.dumps({str(i): i * 0.1 for i in range(1000)})\n"
    "    print('a line', f'{1.5:.3f}', len(s))\n"
    "    return json.loads(s)['3'] == 3 * 0.1 and re.findall('9+', s) and s.encode().decode() == s\n"
    "def numbers():\n"
    "    return math.factorial(500) > 0 and float('1.5') == 1.5 and decimal.Decimal(2).sqrt() > 1\n"
    "def tells_time():\n"
    "    time.sleep(0.0001)\n"
    "    return time.time() > 0 and datetime.datetime.now().year > 2000 and time.process_time() >= 0\n"
    "def fails():\n"
    "    try:\n"
    "        return [][1]\n"
    "    except IndexError as e:\n"
    "        return str(e)\n"
    "def hashes():\n"
    "    return hashlib.sha256(b'x').hexdigest() and hash('x') and random.SystemRandom().random() < 1\n"
    "def arrays():\n"
    "    a = np.random.default_rng().random((300, 300))\n"
    "    b = np.linalg.inv(a) @ a\n"
    "    return np.allclose(b, np.eye(300)) and np.fft.fft(a).shape == (300, 300) and np.median(a) < 1\n"
    "def vectors():\n"
    "    a = np.arange(1000000, dtype='f4')\n"
    "    return np.sort(a)[0] == 0 and str(a) and np.unique(a % 7).size == 7 and a.std() > 1\n"
    "arrays()  # numpy loads some of its parts when they are first used\n"
    "things = [sorts, strings, numbers, tells_time, fails, hashes, arrays, vectors]\n"
    "def thing(n):\n"
    "    return b'all' if n >= len(things) else b'done' if things[n]() else b'wrong'\n";

static int
init(void **state, uint64_t result_max)
{
	PyConfig config;
	PyObject *main;

	(void)result_max;
	/* Isolated: it doesn't ask who the user is, and where he lives. */
	PyConfig_InitIsolatedConfig(&config);
	if (PyStatus_Exception(Py_InitializeFromConfig(&config)) || PyRun_SimpleString(body))
		return -ENOSYS;
	main = PyImport_AddModule("__main__");
	*state = main ? PyObject_GetAttrString(main, "thing") : NULL;
	return *state ? 0 : -ENOSYS;
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	PyObject *r = PyObject_CallFunction(state, "K", (unsigned long long)in->arg[0]);
	int ret = -EIO;

	if (r && PyBytes_Check(r))
		ret = vfun_result_put(out, PyBytes_AS_STRING(r), (uint64_t)PyBytes_GET_SIZE(r));
	else
		PyErr_Print();
	Py_XDECREF(r);
	return ret;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program program = { .size = sizeof(program),
		.signature = "n u64 -> out u8[*]",
		.summary = "Python",
		.init = init,
		.call = call };

	return vfun_serve(&program, argc, argv);
}
