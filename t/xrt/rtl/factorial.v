// SPDX-License-Identifier: MIT
//
// factorial.v - the kernel `factorial`: n!, exact for n <= 300; arguments as in number.v
//
// A number of 32 words is multiplied by 2, 3, ... n: one word a clock, from the lowest up, with a carry.
module factorial (
	`include "ports.vh"
);
	wire begin_work;
	wire [11:0] n;
	wire [4:0] word;
	reg ready;

	number #(.LIMIT(300)) shell (
		`include "connect.vh"
		,
		.begin_work(begin_work), .n(n), .ready(ready), .word(word), .value(words[word])
	);

	reg [63:0] words [0:31];
	reg busy, first;
	reg [4:0] at;
	reg [11:0] factor;
	reg [11:0] carry;

	// The first of all passes multiplies 1, whatever the words hold, by 1.
	wire [63:0] old = first ? (at == 5'd0 ? 64'd1 : 64'd0) : words[at];
	wire [75:0] product = {12'd0, old} * {64'd0, factor} + {64'd0, carry};
	wire last = at == 5'd31;

	always @(posedge ap_clk) begin
		ready <= busy && last && factor >= n;
		if (begin_work) begin
			busy <= 1'b1;
			first <= 1'b1;
			at <= 5'd0;
			factor <= 12'd1;
			carry <= 12'd0;
		end else if (busy) begin
			words[at] <= product[63:0];
			at <= at + 5'd1;
			carry <= last ? 12'd0 : product[75:64];
			if (last) begin
				first <= 1'b0;
				factor <= factor + 12'd1;
				busy <= factor < n;
			end
		end
		if (!ap_rst_n) begin
			busy <= 1'b0;
			ready <= 1'b0;
		end
	end
endmodule
