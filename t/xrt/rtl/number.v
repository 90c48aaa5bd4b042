// SPDX-License-Identifier: MIT
//
// number.v - what kernels have in common that compute one number of 2048 bits
//
//	n	64 bits at 0x10
//	reps	64 bits at 0x18: compute it so many times, 0 counts as 1
//	out	64 bits at 0x20: address of 256 bytes for the answer, a multiple of 8
//
// The kernel around it gets `begin_work` for one clock, and `n`; it answers `ready` for one clock when the number is
// complete, and shows its 64-bit words, lowest first, as `word` asks for them. If n is greater than LIMIT, it isn't asked:
// then the answer is all ones, which no number of theirs is.
module number #(
	parameter [63:0] LIMIT = 0
) (
	`include "ports.vh"
	,
	output wire begin_work,
	output wire [11:0] n,
	input wire ready,
	output wire [4:0] word,
	input wire [63:0] value
);
	localparam [1:0] IDLE = 2'd0, WORKS = 2'd1, WRITES = 2'd2, DONE = 2'd3;

	reg [1:0] state;
	reg [63:0] left;
	reg [4:0] index;
	wire [191:0] arguments;
	wire start, take, written;
	wire in_range = arguments[63:0] <= LIMIT;
	wire again = left > 64'd1;

	assign n = arguments[11:0];
	assign word = index;
	assign begin_work = in_range && ((state == IDLE && start) || (state == WORKS && ready && again));

	control #(.WORDS(6)) registers (
		.clk(ap_clk), .rst_n(ap_rst_n),
		.awaddr(s_axi_control_awaddr), .awvalid(s_axi_control_awvalid), .awready(s_axi_control_awready),
		.wdata(s_axi_control_wdata), .wstrb(s_axi_control_wstrb), .wvalid(s_axi_control_wvalid),
		.wready(s_axi_control_wready), .bresp(s_axi_control_bresp), .bvalid(s_axi_control_bvalid),
		.bready(s_axi_control_bready), .araddr(s_axi_control_araddr), .arvalid(s_axi_control_arvalid),
		.arready(s_axi_control_arready), .rdata(s_axi_control_rdata), .rresp(s_axi_control_rresp),
		.rvalid(s_axi_control_rvalid), .rready(s_axi_control_rready),
		.arguments(arguments), .start(start), .done(state == DONE)
	);

	// It only writes; the outputs of the reading half are for nobody.
	wire rd_valid, rd_done;
	wire [63:0] rd_data;
	wire unused = &{1'b0, rd_valid, rd_done, rd_data};

	master memory (
		.clk(ap_clk), .rst_n(ap_rst_n),
		.rd_start(1'b0), .rd_address(64'd0), .rd_beats(32'd0),
		.rd_valid(rd_valid), .rd_data(rd_data), .rd_done(rd_done),
		.wr_start(state == WORKS && (ready || !in_range) && !begin_work),
		.wr_address(arguments[191:128]), .wr_beats(32'd32),
		.wr_data(in_range ? value : ~64'd0), .wr_strobe(8'hff), .wr_take(take), .wr_done(written),
		.awaddr(m_axi_gmem_awaddr), .awlen(m_axi_gmem_awlen), .awsize(m_axi_gmem_awsize),
		.awburst(m_axi_gmem_awburst), .awvalid(m_axi_gmem_awvalid), .awready(m_axi_gmem_awready),
		.wdata(m_axi_gmem_wdata), .wstrb(m_axi_gmem_wstrb), .wlast(m_axi_gmem_wlast),
		.wvalid(m_axi_gmem_wvalid), .wready(m_axi_gmem_wready), .bresp(m_axi_gmem_bresp),
		.bvalid(m_axi_gmem_bvalid), .bready(m_axi_gmem_bready),
		.araddr(m_axi_gmem_araddr), .arlen(m_axi_gmem_arlen), .arsize(m_axi_gmem_arsize),
		.arburst(m_axi_gmem_arburst), .arvalid(m_axi_gmem_arvalid), .arready(m_axi_gmem_arready),
		.rdata(m_axi_gmem_rdata), .rresp(m_axi_gmem_rresp), .rlast(m_axi_gmem_rlast),
		.rvalid(m_axi_gmem_rvalid), .rready(m_axi_gmem_rready)
	);

	always @(posedge ap_clk) begin
		case (state)
		IDLE: if (start) begin
			left <= arguments[127:64];
			index <= 5'd0;
			state <= WORKS;
		end
		WORKS: if (ready && again && in_range)
			left <= left - 64'd1;
		else if (ready || !in_range)
			state <= WRITES;
		WRITES: begin
			if (take)
				index <= index + 5'd1;
			if (written)
				state <= DONE;
		end
		default: state <= IDLE;
		endcase
		if (!ap_rst_n)
			state <= IDLE;
	end
endmodule
