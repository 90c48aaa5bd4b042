/* SPDX-License-Identifier: MIT
 *
 * model-rtl.cc - the test device: its kernels as Verilog, compiled by Verilator
 *
 * What is around a kernel on a card is played here, clock by clock: a host at its AXI4-Lite port, which writes the
 * arguments and the start bit, and then reads the control register again and again until it says "done"; and the memory
 * at its AXI4 port, which serves bursts from the device's memory and refuses what isn't the client's.
 *
 * Inputs change after the rising edge. A transfer happens where valid and ready were both high before it.
 */
#include <cstring>
#include "Vfactorial.h"
#include "Vfibonacci.h"
#include "Vvadd.h"
#include "model.h"

const char *const kernels_kind = "rtl";

namespace
{

enum : unsigned { CLOCKS = 2000, BEATS = 256, OKAY = 0, SLVERR = 2 };

struct Unit {
	virtual void reset() = 0;
	virtual void start(const uint32_t *regs) = 0;
	virtual bool step(uint64_t *cycles) = 0;
	virtual ~Unit() = default;
};

template <class V> class UnitOf : public Unit
{
	V top;
	unsigned kernel;
	uint64_t clocks = 0;
	bool done = false;
	uint64_t read_data[BEATS], write_data[BEATS];
	unsigned read_at = 0, write_at = 0;
	uint64_t write_address = 0;
	size_t write_bytes = 0;

	/* A beat has come. The strobes leave out bytes at the end alone. */
	void
	take_beat()
	{
		write_data[write_at++] = top.m_axi_gmem_wdata;
		write_bytes += __builtin_popcount(top.m_axi_gmem_wstrb);
	}

	void
	read_burst(uint64_t address, unsigned beats)
	{
		bool ok = bus_read(kernel, address, read_data, beats * 8);

		top.m_axi_gmem_rresp = ok ? OKAY : SLVERR;
		top.m_axi_gmem_arready = 0;
		read_at = BEATS - beats;
		memmove(read_data + read_at, read_data, beats * 8);
	}

	void
	write_burst()
	{
		top.m_axi_gmem_bresp = bus_write(kernel, write_address, write_data, write_bytes) ? OKAY : SLVERR;
		top.m_axi_gmem_bvalid = 1;
		top.m_axi_gmem_wready = 0;
	}

	/* One clock. */
	void
	clock()
	{
		const bool ar = top.m_axi_gmem_arvalid && top.m_axi_gmem_arready;
		const bool r = top.m_axi_gmem_rvalid && top.m_axi_gmem_rready;
		const bool aw = top.m_axi_gmem_awvalid && top.m_axi_gmem_awready;
		const bool w = top.m_axi_gmem_wvalid && top.m_axi_gmem_wready;
		const bool last = top.m_axi_gmem_wlast;
		const bool b = top.m_axi_gmem_bvalid && top.m_axi_gmem_bready;
		const uint64_t read_address = top.m_axi_gmem_araddr;
		const unsigned read_beats = top.m_axi_gmem_arlen + 1;

		if (w)
			take_beat();
		if (aw)
			write_address = top.m_axi_gmem_awaddr;
		if (top.s_axi_control_rvalid && top.s_axi_control_rready && top.s_axi_control_rdata & AP_DONE)
			done = true;
		top.ap_clk = 1;
		top.eval();
		clocks++;

		read_at += r;
		if (ar)
			read_burst(read_address, read_beats);
		top.m_axi_gmem_rvalid = read_at < BEATS;
		top.m_axi_gmem_rlast = read_at == BEATS - 1;
		top.m_axi_gmem_rdata = read_at < BEATS ? read_data[read_at] : 0;
		top.m_axi_gmem_arready = read_at == BEATS;

		if (aw) {
			write_at = write_bytes = 0;
			top.m_axi_gmem_awready = 0;
			top.m_axi_gmem_wready = 1;
		}
		if (b) {
			top.m_axi_gmem_bvalid = 0;
			top.m_axi_gmem_awready = 1;
		}
		if (w && last)
			write_burst();
		top.ap_clk = 0;
		top.eval();
	}

	void
	write_register(unsigned word, uint32_t value)
	{
		top.s_axi_control_awaddr = word * 4;
		top.s_axi_control_wdata = value;
		top.s_axi_control_wstrb = 0xf;
		top.s_axi_control_awvalid = top.s_axi_control_wvalid = 1;
		top.eval();
		while (!top.s_axi_control_awready)
			clock();
		clock();
		top.s_axi_control_awvalid = top.s_axi_control_wvalid = 0;
		clock();
	}

      public:
	explicit UnitOf(unsigned number) : kernel(number)
	{
		reset();
	}

	void
	reset() override
	{
		read_at = BEATS;
		write_at = write_bytes = 0;
		top.s_axi_control_arvalid = top.s_axi_control_rready = 0;
		top.s_axi_control_awvalid = top.s_axi_control_wvalid = 0;
		top.s_axi_control_bready = 1;
		top.m_axi_gmem_awready = 1;
		top.m_axi_gmem_wready = top.m_axi_gmem_bvalid = 0;
		top.ap_rst_n = 0;
		for (int i = 0; i < 4; i++)
			clock();
		top.ap_rst_n = 1;
		clock();
	}

	void
	start(const uint32_t *regs) override
	{
		for (unsigned word = 4; word < REG_WORDS; word++)
			write_register(word, regs[word]);
		write_register(0, AP_START);
		top.s_axi_control_araddr = 0;
		top.s_axi_control_arvalid = top.s_axi_control_rready = 1;
		clocks = 0;
		done = false;
	}

	bool
	step(uint64_t *cycles) override
	{
		for (unsigned i = 0; i < CLOCKS && !done; i++)
			clock();
		*cycles = clocks;
		if (done)
			top.s_axi_control_arvalid = 0;
		return done;
	}
};

Unit &
unit(unsigned kernel)
{
	static UnitOf<Vfactorial> factorial(0);
	static UnitOf<Vfibonacci> fibonacci(1);
	static UnitOf<Vvadd> vadd(2);
	static Unit *const units[KERNELS] = { &factorial, &fibonacci, &vadd };

	return *units[kernel];
}

} /* namespace */

void
kernels_start(unsigned kernel, const uint32_t regs[REG_WORDS])
{
	unit(kernel).start(regs);
}

bool
kernels_step(unsigned kernel, uint64_t *cycles)
{
	return unit(kernel).step(cycles);
}

void
kernels_reset(unsigned kernel)
{
	unit(kernel).reset();
}

/* Verilator's library asks for it. */
double
sc_time_stamp()
{
	return 0;
}
