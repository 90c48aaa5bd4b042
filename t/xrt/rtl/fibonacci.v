// SPDX-License-Identifier: MIT
//
// fibonacci.v - the kernel `fibonacci`: F(n), exact for n <= 2900; arguments as in number.v
//
// Two numbers of 32 words, F(i) and F(i + 1), become F(i + 1) and F(i + 2), n times: one word a clock, from the lowest
// up, with a carry.
module fibonacci (
	`include "ports.vh"
);
	wire begin_work;
	wire [11:0] n;
	wire [4:0] word;
	reg ready;

	number #(.LIMIT(2900)) shell (
		`include "connect.vh"
		,
		.begin_work(begin_work), .n(n), .ready(ready), .word(word), .value(lower[word])
	);

	reg [63:0] lower [0:31];
	reg [63:0] upper [0:31];
	reg busy, first, carry;
	reg [4:0] at;
	reg [11:0] done;

	// The first of all passes makes F(0) = 0 and F(1) = 1 of F(-1) = 1 and F(0) = 0, whatever the words hold.
	wire [63:0] a = first ? (at == 5'd0 ? 64'd1 : 64'd0) : lower[at];
	wire [63:0] b = first ? 64'd0 : upper[at];
	wire [64:0] sum = {1'b0, a} + {1'b0, b} + {64'd0, carry};
	wire last = at == 5'd31;

	always @(posedge ap_clk) begin
		ready <= busy && last && done == n;
		if (begin_work) begin
			busy <= 1'b1;
			first <= 1'b1;
			at <= 5'd0;
			done <= 12'd0;
			carry <= 1'b0;
		end else if (busy) begin
			lower[at] <= b;
			upper[at] <= sum[63:0];
			at <= at + 5'd1;
			carry <= last ? 1'b0 : sum[64];
			if (last) begin
				first <= 1'b0;
				done <= done + 12'd1;
				busy <= done != n;
			end
		end
		if (!ap_rst_n) begin
			busy <= 1'b0;
			ready <= 1'b0;
		end
	end
endmodule
