/* SPDX-License-Identifier: MIT
 *
 * runtime.cc - runtime.c's question to the C++ library
 */
#include <algorithm>
#include <any>
#include <atomic>
#include <charconv>
#include <chrono>
#include <complex>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <regex>
#include <shared_mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <valarray>
#include <vector>

#include "../../proto/vfun.h"

static bool
sorts()
{
	std::vector<double> v(100000);
	std::mt19937_64 random(1);

	std::generate(v.begin(), v.end(), [&] { return std::generate_canonical<double, 53>(random); });
	auto w = v;
	std::stable_sort(v.begin(), v.end());
	std::sort(w.begin(), w.end());
	return v == w && std::is_sorted(v.begin(), v.end());
}

static bool
strings()
{
	std::ostringstream s;
	std::string all;
	double d;

	s.imbue(std::locale::classic());
	s << std::setprecision(3) << 1.5 << ' ' << std::hex << 255 << ' ' << std::put_money(100) << std::quoted("x");
	for (int i = 0; i < 100000; i++)
		all += std::to_string(i);
	std::istringstream("2.25 rest") >> d;
	std::cout << "cout " << d << std::endl;
	std::cerr << "cerr " << std::boolalpha << true << '\n';
	return s.str().substr(0, 6) == "1.5 ff" && d == 2.25 && std::stod("1e3") == 1000 &&
	       std::regex_search(all, std::regex("9+8")) && std::wstring(L"wide").size() == 4;
}

static bool
throws()
{
	int caught = 0;

	for (int i = 0; i < 3; i++)
		try {
			std::vector<int>().at(1);
		} catch (const std::out_of_range &e) {
			caught += e.what()[0] != '\0';
		}
	try {
		std::any_cast<int>(std::any(std::string()));
	} catch (...) {
		caught++;
	}
	return caught == 4;
}

static bool
containers()
{
	std::unordered_map<std::string, int> hash;
	std::map<int, std::shared_ptr<std::string>> tree;
	std::valarray<double> a(1.0, 1000);

	for (int i = 0; i < 10000; i++) {
		hash[std::to_string(i)] = i;
		tree[i] = std::make_shared<std::string>(1000, 'x');
	}
	tree.clear();
	return hash["77"] == 77 && std::sin(a).sum() > 800 && std::abs(std::polar(2.0, 1.0)) > 1.99;
}

static bool
tells_time()
{
	using namespace std::chrono;
	auto begin = steady_clock::now();
	std::time_t now = system_clock::to_time_t(system_clock::now());
	std::ostringstream s;

	s << std::put_time(std::localtime(&now), "%F %T");
	std::this_thread::sleep_for(microseconds(10));
	std::this_thread::yield();
	return steady_clock::now() > begin && s.str().size() == 19;
}

static bool
draws()
{
	std::random_device device;
	std::default_random_engine engine(device());

	return std::normal_distribution<>(0, 1)(engine) < 100;
}

static bool
locks()
{
	static std::once_flag once;
	static std::string lazy(100, 'x');
	std::shared_mutex shared;
	std::timed_mutex timed;
	std::atomic<int> n{ 0 };

	std::call_once(once, [&] { n++; });
	std::shared_lock<std::shared_mutex> reads(shared);
	std::unique_lock<std::timed_mutex> holds(timed, std::chrono::milliseconds(1));
	return n == 1 && holds.owns_lock() && lazy.size() == 100;
}

static bool (*const thing[])() = { sorts, strings, throws, containers, tells_time, draws, locks };

static int
call(void *, const vfun_incoming *in, vfun_outgoing *out)
{
	uint64_t n = in->arg[0];

	if (n >= std::size(thing))
		return vfun_result_put(out, "all", 3);
	return thing[n]() ? vfun_result_put(out, "done", 4) : vfun_refuse(out, "it came out wrong");
}

int
main(int argc, char **argv)
{
	vfun_program program = {};

	program.size = sizeof(program);
	program.signature = "n u64 -> out u8[*]";
	program.summary = "the C++ library";
	program.call = call;
	return vfun_serve(&program, argc, argv);
}
