// The result document, and its JSON.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "render/render.h"
#include "result/result.h"

extern "C" {
#include "result/utf8.h"
}

namespace
{

class Result : public testing::Test
{
      protected:
	~Result() override
	{
		result_free(doc);
	}

	std::string json() const
	{
		char *text = nullptr;
		size_t size = 0;
		FILE *f = open_memstream(&text, &size);
		render_options options = {};

		render_json(result_root(doc), &options, f);
		fclose(f);
		std::string out(text, size);
		free(text);
		return out;
	}

	result *doc = result_new();
	rvalue *root = result_root(doc);
};

std::string repaired(const std::string &s)
{
	struct strbuf sb = STRBUF_INIT;

	utf8_repair(&sb, s.data(), s.size());
	std::string out(sb.buf, sb.len);
	strbuf_release(&sb);
	return out;
}

const char *const bad = "\xef\xbf\xbd";

} // namespace

TEST_F(Result, MembersStayInTheirOrder)
{
	rvalue *list;

	r_int(doc, root, "z", 1);
	r_bool(doc, root, "a", true);
	list = r_array(doc, root, "list");
	r_push_int(doc, list, 3);
	r_push_string(doc, list, "x");
	r_push_null(doc, list);
	r_int(doc, r_push_object(doc, list), "k", 4);
	r_float(doc, r_object(doc, root, "o"), "f", 0.5);
	EXPECT_EQ(json(), "{\n\"z\":1,\n\"a\":true,\n\"list\":[\n3,\n\"x\",\nnull,\n{\"k\":4}\n],\n"
			  "\"o\":{\"f\":0.5}\n}\n");
}

TEST_F(Result, AnEmptyOneIsJson)
{
	EXPECT_EQ(json(), "{\n}\n");
	r_array(doc, root, "list");
	EXPECT_EQ(json(), "{\n\"list\":[]\n}\n");
}

TEST_F(Result, IntegersKeepAllTheirDigits)
{
	r_int(doc, root, "max", INT64_MAX);
	r_int(doc, root, "min", INT64_MIN);
	r_int(doc, root, "odd", (INT64_C(1) << 53) + 1);
	EXPECT_NE(json().find("\"max\":9223372036854775807,"), std::string::npos);
	EXPECT_NE(json().find("\"min\":-9223372036854775808,"), std::string::npos);
	EXPECT_NE(json().find("\"odd\":9007199254740993\n"), std::string::npos);
	EXPECT_EQ(r_get_int(root, "max"), INT64_MAX);
}

TEST_F(Result, StringsAreCopiedEscapedAndMadeUtf8)
{
	char text[] = "a\"\\\n\x01\xff\xc3\xa9";

	r_string(doc, root, "s", text);
	r_string(doc, root, "none", nullptr);
	text[0] = 'b';
	EXPECT_EQ(std::string(r_get_string(root, "s")), std::string("a\"\\\n\x01") + bad + "é");
	EXPECT_NE(json().find(std::string("\"s\":\"a\\\"\\\\\\n\\u0001") + bad + "é\""),
		  std::string::npos)
		<< json();
	EXPECT_NE(json().find("\"none\":null"), std::string::npos);
}

TEST_F(Result, ReadingWhatIsNotThereGivesNothing)
{
	r_string(doc, root, "s", "text");
	r_null(doc, root, "null");
	r_int(doc, root, "i", 7);
	EXPECT_EQ(r_get(root, "absent"), nullptr);
	EXPECT_EQ(r_get(nullptr, "s"), nullptr);
	EXPECT_EQ(r_get_int(root, "s"), 0);
	EXPECT_EQ(r_get_string(root, "i"), nullptr);
	EXPECT_EQ(r_get_float(root, "i"), 7.0);
	EXPECT_FALSE(r_get_bool(root, "i"));
	EXPECT_FALSE(r_has(root, "null"));
	EXPECT_TRUE(r_has(root, "s"));
	result_free(nullptr);
}

TEST(Utf8, OnlyWellFormedCharactersPass)
{
	EXPECT_EQ(repaired("plain"), "plain");
	EXPECT_EQ(repaired("é€𐍈"), "é€𐍈");
	EXPECT_EQ(repaired("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf"); // U+10FFFF
	EXPECT_EQ(repaired("a\x80z"), std::string("a") + bad + "z"); // alone
	EXPECT_EQ(repaired("\xc0\xaf"), std::string(bad) + bad); // overlong
	EXPECT_EQ(repaired("\xe0\x80\xaf").find('/'), std::string::npos);
	EXPECT_EQ(repaired("\xed\xa0\x80"), std::string(bad) + bad + bad); // a surrogate
	EXPECT_EQ(repaired("\xf4\x90\x80\x80"), std::string(bad) + bad + bad + bad); // too high
	EXPECT_EQ(repaired("\xe2\x82"), std::string(bad) + bad); // cut off
}

TEST(Utf8, RepairedTextIsAlwaysValidAndValidTextIsUnchanged)
{
	std::string s(3, '\0');

	for (unsigned int i = 0; i < 1u << 24; i += 37) {
		for (unsigned int k = 0; k < 3; k++)
			s[k] = static_cast<char>(i >> 8 * k);
		std::string fixed = repaired(s);

		ASSERT_TRUE(utf8_is_valid(fixed.data(), fixed.size())) << i;
		ASSERT_EQ(utf8_is_valid(s.data(), s.size()), fixed == s) << i;
	}
}
