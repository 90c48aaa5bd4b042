// SPDX-License-Identifier: MIT
//
// master.v - a kernel's access to global memory: an AXI4 master, 64 bits wide, with bursts
//
// One transfer in each direction at a time: an address, a multiple of 8, and how many beats of 8 bytes, at least one. It
// is cut into bursts of at most 64 beats that don't cross 4 KiB, as AXI demands. `rd_valid` brings a beat that has to be
// taken at once; `wr_take` says that `wr_data` was taken and the next is wanted. `rd_done` and `wr_done` are high for one
// clock after the last beat, or after the last write was confirmed.
//
// A refused access is not noticed: AP_CTRL_HS has no way to tell the host.
module master (
	input wire clk,
	input wire rst_n,

	input wire rd_start,
	input wire [63:0] rd_address,
	input wire [31:0] rd_beats,
	output wire rd_valid,
	output wire [63:0] rd_data,
	output wire rd_done,

	input wire wr_start,
	input wire [63:0] wr_address,
	input wire [31:0] wr_beats,
	input wire [63:0] wr_data,
	input wire [7:0] wr_strobe,
	output wire wr_take,
	output wire wr_done,

	output wire [63:0] awaddr,
	output wire [7:0] awlen,
	output wire [2:0] awsize,
	output wire [1:0] awburst,
	output wire awvalid,
	input wire awready,
	output wire [63:0] wdata,
	output wire [7:0] wstrb,
	output wire wlast,
	output wire wvalid,
	input wire wready,
	input wire [1:0] bresp,
	input wire bvalid,
	output wire bready,
	output wire [63:0] araddr,
	output wire [7:0] arlen,
	output wire [2:0] arsize,
	output wire [1:0] arburst,
	output wire arvalid,
	input wire arready,
	input wire [63:0] rdata,
	input wire [1:0] rresp,
	input wire rlast,
	input wire rvalid,
	output wire rready
);
	localparam [31:0] LONGEST = 32'd64;
	localparam [1:0] IDLE = 2'd0, ADDRESS = 2'd1, DATA = 2'd2, CONFIRM = 2'd3;

	// Beats of the next burst.
	function [31:0] burst(input [31:0] left, input [8:0] beat_in_page);
		reg [31:0] room;
		begin
			room = 32'd512 - {23'd0, beat_in_page};
			burst = room < LONGEST ? room : LONGEST;
			if (left < burst)
				burst = left;
		end
	endfunction

	wire unused = &{1'b0, bresp, rresp};

	// Reading
	reg [1:0] rd_state;
	reg [63:0] rd_at;
	reg [31:0] rd_left;
	wire [31:0] rd_burst = burst(rd_left, rd_at[11:3]);
	wire rd_last = rd_state == DATA && rvalid && rlast;

	assign araddr = rd_at;
	assign arlen = rd_burst[7:0] - 8'd1;
	assign arsize = 3'd3;
	assign arburst = 2'b01;
	assign arvalid = rd_state == ADDRESS;
	assign rready = rd_state == DATA;
	assign rd_valid = rvalid & rready;
	assign rd_data = rdata;
	assign rd_done = rd_last && rd_left == rd_burst;

	always @(posedge clk) begin
		case (rd_state)
		IDLE: if (rd_start) begin
			rd_at <= rd_address;
			rd_left <= rd_beats;
			rd_state <= ADDRESS;
		end
		ADDRESS: if (arready)
			rd_state <= DATA;
		default: if (rd_last) begin
			rd_at <= rd_at + {29'd0, rd_burst, 3'd0};
			rd_left <= rd_left - rd_burst;
			rd_state <= rd_done ? IDLE : ADDRESS;
		end
		endcase
		if (!rst_n)
			rd_state <= IDLE;
	end

	// Writing
	reg [1:0] wr_state;
	reg [63:0] wr_at;
	reg [31:0] wr_left, wr_sent;
	wire [31:0] wr_burst = burst(wr_left, wr_at[11:3]);
	wire wr_last = wr_state == CONFIRM && bvalid;

	assign awaddr = wr_at;
	assign awlen = wr_burst[7:0] - 8'd1;
	assign awsize = 3'd3;
	assign awburst = 2'b01;
	assign awvalid = wr_state == ADDRESS;
	assign wdata = wr_data;
	assign wstrb = wr_strobe;
	assign wlast = wr_sent + 32'd1 == wr_burst;
	assign wvalid = wr_state == DATA;
	assign bready = wr_state == CONFIRM;
	assign wr_take = wvalid & wready;
	assign wr_done = wr_last && wr_left == wr_burst;

	always @(posedge clk) begin
		case (wr_state)
		IDLE: if (wr_start) begin
			wr_at <= wr_address;
			wr_left <= wr_beats;
			wr_state <= ADDRESS;
		end
		ADDRESS: if (awready) begin
			wr_sent <= 32'd0;
			wr_state <= DATA;
		end
		DATA: if (wready) begin
			wr_sent <= wr_sent + 32'd1;
			if (wlast)
				wr_state <= CONFIRM;
		end
		default: if (wr_last) begin
			wr_at <= wr_at + {29'd0, wr_burst, 3'd0};
			wr_left <= wr_left - wr_burst;
			wr_state <= wr_done ? IDLE : ADDRESS;
		end
		endcase
		if (!rst_n)
			wr_state <= IDLE;
	end
endmodule
