// SPDX-License-Identifier: MIT
//
// vadd.v - the kernel `vadd`: out[i] = a[i] + b[i], for `count` words of 32 bits
//
//	a	64 bits at 0x10: address, a multiple of 8
//	b	64 bits at 0x18: the same
//	out	64 bits at 0x20: the same
//	count	32 bits at 0x28
//
// Vectors are streamed in blocks of up to 128 words, two a beat: a block of `a` into a buffer, then the block of `b` as it
// comes added to it, then the sums to `out`. If count is odd, the last beat writes only half of its bytes.
module vadd (
	`include "ports.vh"
);
	localparam [2:0] IDLE = 3'd0, NEXT = 3'd1, READ_A = 3'd2, READ_B = 3'd3, WRITE = 3'd4, DONE = 3'd5;
	localparam [31:0] BLOCK = 32'd64;

	reg [2:0] state;
	reg [63:0] offset;	// in bytes
	reg [31:0] left;	// words
	reg [5:0] index;	// in the block, in beats
	reg rd_start, wr_start;
	reg [63:0] words [0:63];

	wire [223:0] arguments;
	wire start, rd_valid, rd_done, wr_take, wr_done;
	wire [63:0] rd_data;
	wire [31:0] beats_left = {1'b0, left[31:1]} + {31'd0, left[0]};
	wire [31:0] beats = beats_left < BLOCK ? beats_left : BLOCK;
	wire half = left[0] && {26'd0, index} + 32'd1 == beats_left;
	wire [63:0] sums = {words[index][63:32] + rd_data[63:32], words[index][31:0] + rd_data[31:0]};

	control #(.WORDS(7)) registers (
		.clk(ap_clk), .rst_n(ap_rst_n),
		.awaddr(s_axi_control_awaddr), .awvalid(s_axi_control_awvalid), .awready(s_axi_control_awready),
		.wdata(s_axi_control_wdata), .wstrb(s_axi_control_wstrb), .wvalid(s_axi_control_wvalid),
		.wready(s_axi_control_wready), .bresp(s_axi_control_bresp), .bvalid(s_axi_control_bvalid),
		.bready(s_axi_control_bready), .araddr(s_axi_control_araddr), .arvalid(s_axi_control_arvalid),
		.arready(s_axi_control_arready), .rdata(s_axi_control_rdata), .rresp(s_axi_control_rresp),
		.rvalid(s_axi_control_rvalid), .rready(s_axi_control_rready),
		.arguments(arguments), .start(start), .done(state == DONE)
	);

	master memory (
		.clk(ap_clk), .rst_n(ap_rst_n),
		.rd_start(rd_start), .rd_address((state == READ_A ? arguments[63:0] : arguments[127:64]) + offset),
		.rd_beats(beats), .rd_valid(rd_valid), .rd_data(rd_data), .rd_done(rd_done),
		.wr_start(wr_start), .wr_address(arguments[191:128] + offset), .wr_beats(beats),
		.wr_data(words[index]), .wr_strobe(half ? 8'h0f : 8'hff), .wr_take(wr_take), .wr_done(wr_done),
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
		rd_start <= 1'b0;
		wr_start <= 1'b0;
		if (rd_valid)
			words[index] <= state == READ_A ? rd_data : sums;
		if (rd_valid || wr_take)
			index <= index + 6'd1;

		case (state)
		IDLE: if (start) begin
			offset <= 64'd0;
			left <= arguments[223:192];
			state <= NEXT;
		end
		NEXT: begin
			index <= 6'd0;
			rd_start <= left != 32'd0;
			state <= left != 32'd0 ? READ_A : DONE;
		end
		READ_A: if (rd_done) begin
			index <= 6'd0;
			rd_start <= 1'b1;
			state <= READ_B;
		end
		READ_B: if (rd_done) begin
			index <= 6'd0;
			wr_start <= 1'b1;
			state <= WRITE;
		end
		WRITE: if (wr_done) begin
			offset <= offset + {29'd0, BLOCK, 3'd0};
			left <= beats == beats_left ? 32'd0 : left - 2 * BLOCK;
			state <= NEXT;
		end
		default: state <= IDLE;
		endcase
		if (!ap_rst_n) begin
			state <= IDLE;
			rd_start <= 1'b0;
			wr_start <= 1'b0;
		end
	end
endmodule
