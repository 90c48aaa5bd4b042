// SPDX-License-Identifier: MIT
//
// control.v - the registers of a kernel: an AXI4-Lite slave with the AP_CTRL_HS protocol
//
//	0x00	control: bit 0 start, 1 done (cleared by reading), 2 idle, 3 ready
//	0x10...	the arguments, `WORDS` of 32 bits
//
// `start` is high from the host's writing 1 until the kernel says `done`, for one clock. There are no interrupts: what
// is written to 0x04, 0x08 and 0x0c is lost.
module control #(
	parameter WORDS = 8
) (
	input wire clk,
	input wire rst_n,

	input wire [5:0] awaddr,
	input wire awvalid,
	output wire awready,
	input wire [31:0] wdata,
	input wire [3:0] wstrb,
	input wire wvalid,
	output wire wready,
	output wire [1:0] bresp,
	output reg bvalid,
	input wire bready,
	input wire [5:0] araddr,
	input wire arvalid,
	output wire arready,
	output reg [31:0] rdata,
	output wire [1:0] rresp,
	output reg rvalid,
	input wire rready,

	output reg [32*WORDS-1:0] arguments,
	output reg start,
	input wire done
);
	localparam [3:0] FIRST = 4;

	reg done_seen;
	wire [3:0] to = awaddr[5:2];
	wire [3:0] from = araddr[5:2];
	wire writes = awvalid & wvalid & ~bvalid;
	wire reads = arvalid & ~rvalid;

	// Address and data of a write are taken together.
	assign awready = writes;
	assign wready = writes;
	assign arready = ~rvalid;
	assign bresp = 2'b00;
	assign rresp = 2'b00;

	// Registers are written as a whole: bytes are left out by no host, and by the strobes never.
	wire unused = &{1'b0, wstrb, awaddr[1:0], araddr[1:0]};

	integer i;
	always @(posedge clk) begin
		for (i = 0; i < WORDS; i = i + 1)
			if (writes && to == FIRST + i[3:0])
				arguments[32*i +: 32] <= wdata;
		if (reads) begin
			rdata <= 32'd0;
			if (from == 4'd0)
				rdata <= {28'd0, done_seen, ~start, done_seen, start};
			for (i = 0; i < WORDS; i = i + 1)
				if (from == FIRST + i[3:0])
					rdata <= arguments[32*i +: 32];
		end

		bvalid <= writes | (bvalid & ~bready);
		rvalid <= reads | (rvalid & ~rready);
		if (reads && from == 4'd0)
			done_seen <= 1'b0;
		if (done) begin
			start <= 1'b0;
			done_seen <= 1'b1;
		end else if (writes && to == 4'd0 && wdata[0])
			start <= 1'b1;

		if (!rst_n) begin
			bvalid <= 1'b0;
			rvalid <= 1'b0;
			start <= 1'b0;
			done_seen <= 1'b0;
		end
	end
endmodule
